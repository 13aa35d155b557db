"""What the barrier needs of a database, how it survives cancellation, and when a transaction is run again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from amends.barrier._statements import Statement, Value
from amends.errors import BarrierError

Tx = TypeVar("Tx")
T = TypeVar("T")

# A transaction that lost against another one has waited for it already, so it mostly wins the next time.
RUNS_MAX = 12
WAIT_S_MIN = 0.005
WAIT_S_MAX = 0.5
# Serialization failure and deadlock of PostgreSQL and its kin: nothing happened, and it may be tried again.
RUN_AGAIN = frozenset({"40001", "40P01"})
# psycopg2, which SQLAlchemy may run on, has a name of its own.
STATES_IN = ("sqlstate", "pgcode")
# Somebody else made the table in the same moment.
MADE_MEANWHILE = frozenset({"23505", "42P07", "42710"})
# There is no such column. SQLite has no states, but says it in this way.
NO_SUCH_COLUMN = frozenset({"42703"})
NO_DIGEST_IN_SQLITE = "has no column named digest"


class Database(Protocol[Tx]):
    """A database by one driver. `Tx` is what handlers get: the driver's connection or session, its transaction open.

    The methods are coroutine functions for all drivers. Those of plain drivers never suspend, so that `at_once` can
    run what is made of them.
    """

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        """A transaction of its own: committed at the end of the block, rolled back when an exception leaves it.

        :raises BarrierError: the connection is inside a transaction.
        """
        ...

    def savepoint(self, tx: Tx) -> AbstractAsyncContextManager[object]:
        """A part of the transaction that is rolled back alone when an exception leaves the block.

        :raises Exception: there is nothing any more that it is a part of.
        """
        ...

    async def fetch(self, tx: Tx, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        """Run a statement, and give its rows, if it has any."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Plain:
    """How a plain driver sleeps: in its own thread."""

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs this: see `at_once`


class Asynchronous:
    """How an asynchronous driver sleeps."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def at_once(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("plain code was expected, and it waited for an event loop")


async def run_again_on_conflict(
    database: Database[Tx], run: Callable[[], Awaitable[T]], states: frozenset[str] = RUN_AGAIN
) -> T:
    """Run a whole transaction, and again whenever the database could not fit it between the others."""
    try:
        return await run()
    except Exception as error:  # mostly there is none, and nothing to be set up
        if not has_state(error, states):
            raise
    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: has_state(error, states)),
        stop=stop_after_attempt(RUNS_MAX),
        wait=wait_random_exponential(multiplier=WAIT_S_MIN, max=WAIT_S_MAX),
        sleep=database.sleep,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await run()
    raise AssertionError("the last run returns or raises")


def has_state(error: BaseException, states: frozenset[str] = RUN_AGAIN) -> bool:
    """Tell whether an exception, or one that it comes from, has one of these SQLSTATEs, whatever the driver."""
    return any(getattr(each, name, None) in states for each in _origins(error) for name in STATES_IN)


def lacks_digest(error: BaseException) -> bool:
    """Tell whether a statement of the barrier failed because its table is of a version without digests."""
    return has_state(error, NO_SUCH_COLUMN) or any(NO_DIGEST_IN_SQLITE in str(each) for each in _origins(error))


def in_transaction() -> BarrierError:
    return BarrierError("the connection is inside a transaction; the barrier begins and ends its own")


def ended() -> BarrierError:
    return BarrierError("the transaction of the barrier ended before its handler did; leave its end to the barrier")


async def to_the_end(work: Coroutine[object, object, T]) -> T:
    """Await it to its end, also when this task is cancelled meanwhile: then raise CancelledError after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # seen, so that nobody complains that it was not
        raise cancelled
    return task.result()


@asynccontextmanager
async def unbroken(manager: AbstractAsyncContextManager[T]) -> AsyncGenerator[T, None]:
    """The same block, but neither its beginning nor its end can be cancelled half way.

    Otherwise a cancelled call could leave a connection inside a transaction, for the next one to fall into.
    """
    entering = asyncio.ensure_future(manager.__aenter__())
    try:
        value = await to_the_end(_result_of(entering))
    except asyncio.CancelledError as error:
        if not entering.cancelled() and entering.exception() is None:
            await to_the_end(_left(manager, error))
        raise
    try:
        yield value
    except BaseException as error:
        await to_the_end(_left(manager, error))
        raise
    await to_the_end(_left(manager, None))


async def _result_of(future: asyncio.Future[T]) -> T:
    return await future


async def _left(manager: AbstractAsyncContextManager[object], error: BaseException | None) -> None:
    await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was made from. SQLAlchemy keeps the driver's in `orig`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        orig: object = getattr(error, "orig", None)
        error = orig if isinstance(orig, BaseException) else error.__cause__ or error.__context__
