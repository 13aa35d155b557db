"""The barriers as users hold them: plain and asynchronous, for effects in the database and outside of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from amends.barrier import _outside, _rule
from amends.barrier._database import MADE_MEANWHILE, RUN_AGAIN, Database, at_once, run_again_on_conflict
from amends.barrier._outside import Intent
from amends.barrier._rule import Refuse, Subject
from amends.barrier._statements import ADD_DIGEST, CREATE_INDEX, CREATE_TABLE, FIND_DIGEST, FORGET, Statement
from amends.v1.saga_pb2 import Reply

Tx = TypeVar("Tx")
Tx_co = TypeVar("Tx_co", covariant=True)

# No message of a saga is on its way for a day. A saga may take longer than that: see `forget`.
AGE_MIN = timedelta(days=1)
# Rows in one transaction of `forget`: it holds up nobody for long.
FORGOTTEN_AT_A_TIME = 1000
HOLD_S = 60.0


class Guard(Protocol[Tx_co]):
    """What the kit needs of a barrier. `Tx` is what handlers get of it; `is_async` says what handlers have to be."""

    is_async: ClassVar[bool]

    async def execute(self, subject: Subject, effect: Callable[[Tx_co], Awaitable[Reply]], refuse: Refuse) -> Reply: ...
    async def compensate(
        self, subject: Subject, undo: Callable[[Tx_co, Reply | None], Awaitable[Reply]], *, known: bool
    ) -> Reply: ...


class _InTransaction(Generic[Tx]):
    def __init__(self, database: Database[Tx]) -> None:
        self._database = database

    async def execute(self, subject: Subject, effect: Callable[[Tx], Awaitable[Reply]], refuse: Refuse) -> Reply:
        """For the kit: have the effect of a key once."""
        return await _rule.execute(self._database, subject, effect, refuse)

    async def compensate(
        self, subject: Subject, undo: Callable[[Tx, Reply | None], Awaitable[Reply]], *, known: bool
    ) -> Reply:
        """For the kit: undo the effect of a key once."""
        return await _rule.compensate(self._database, subject, undo, known=known)

    async def _create_table(self) -> None:
        await self._rows(CREATE_TABLE, MADE_MEANWHILE)
        await self._rows(CREATE_INDEX, MADE_MEANWHILE)
        if not await self._rows(FIND_DIGEST):
            await self._add_digest()

    async def _add_digest(self) -> None:
        try:
            await self._rows(ADD_DIGEST)
        except Exception:  # each driver has its own for a column that is there
            if not await self._rows(FIND_DIGEST):
                raise

    async def _forget(self, age: timedelta) -> int:
        if age < AGE_MIN:
            raise ValueError(f"verdicts are kept for {AGE_MIN} at the least, not {age}: their calls may come again")
        forgotten = 0
        while rows := await self._rows(FORGET, age_s=age.total_seconds(), rows=FORGOTTEN_AT_A_TIME):
            forgotten += rows
        return forgotten

    async def _rows(self, statement: Statement, again: frozenset[str] = RUN_AGAIN, **parameters: float) -> int:
        """How many rows a statement gives in a transaction of its own."""

        async def run() -> int:
            async with self._database.transaction() as tx:
                return len(await self._database.fetch(tx, statement, **parameters))

        return await run_again_on_conflict(self._database, run, again | RUN_AGAIN)


class Barrier(_InTransaction[Tx]):
    """Makes each call effective once, in the transaction of the effect, for plain handlers: they run in threads.

    A handler gets the open connection or session as its last argument, works with it, and leaves commit and rollback
    to the barrier. It may run more than once for one call: what a transaction did that was rolled back is gone.
    """

    is_async: ClassVar[bool] = False

    def create_table(self) -> None:
        """Make the table `amends_barrier`, unless it is there. It has to be there before the first call.

        A table of an older version gets the column that it lacks, in a moment and without a rewrite.
        """
        at_once(self._create_table())

    def forget(self, age: timedelta) -> int:
        """Delete the verdicts that are older; give how many. What is in doubt stays.

        Choose an age that is longer than any saga lives, also one that is stuck: an action whose verdict is gone cannot
        be undone any more.

        :raises ValueError: the age is less than a day.
        """
        return at_once(self._forget(age))

    def outside(self, *, hold_s: float = HOLD_S) -> OutsideBarrier:
        """The barrier for effects outside the database. `hold_s` is longer than any attempt takes, in seconds."""
        return OutsideBarrier(self._database, hold_s)


class AsyncBarrier(_InTransaction[Tx]):
    """Makes each call effective once, in the transaction of the effect, for async handlers.

    A handler gets the open connection or session as its last argument, works with it, and leaves commit and rollback
    to the barrier. It may run more than once for one call: what a transaction did that was rolled back is gone.
    """

    is_async: ClassVar[bool] = True

    async def create_table(self) -> None:
        """Make the table `amends_barrier`, unless it is there. It has to be there before the first call.

        A table of an older version gets the column that it lacks, in a moment and without a rewrite.
        """
        await self._create_table()

    async def forget(self, age: timedelta) -> int:
        """Delete the verdicts that are older; give how many. What is in doubt stays.

        Choose an age that is longer than any saga lives, also one that is stuck: an action whose verdict is gone cannot
        be undone any more.

        :raises ValueError: the age is less than a day.
        """
        return await self._forget(age)

    def outside(self, *, hold_s: float = HOLD_S) -> AsyncOutsideBarrier:
        """The barrier for effects outside the database. An attempt that takes longer than `hold_s` is cancelled."""
        return AsyncOutsideBarrier(self._database, hold_s)


class _Outside:
    """What barriers for effects outside the database have in common: all but how long a handler may take."""

    def __init__(self, rule: _outside.Rule[Any]) -> None:
        self._rule = rule

    async def execute(self, subject: Subject, effect: Callable[[Intent], Awaitable[Reply]], refuse: Refuse) -> Reply:
        """For the kit: have the effect of a key, unless its outcome is known."""
        return await self._rule.execute(subject, effect, refuse)

    async def compensate(
        self, subject: Subject, undo: Callable[[Intent, Reply | None], Awaitable[Reply]], *, known: bool
    ) -> Reply:
        """For the kit: undo what the key did or may have done."""
        return await self._rule.compensate(subject, undo, known=known)


class OutsideBarrier(_Outside):
    """Keeps the intent before an effect outside the database and the outcome after it, for plain handlers.

    A handler gets an `Intent` as its last argument. No transaction is open while it runs.
    """

    is_async: ClassVar[bool] = False

    def __init__(self, database: Database[Tx], hold_s: float) -> None:
        super().__init__(_outside.Rule(database, hold_s))


class AsyncOutsideBarrier(_Outside):
    """Keeps the intent before an effect outside the database and the outcome after it, for async handlers.

    A handler gets an `Intent` as its last argument. No transaction is open while it runs.
    """

    is_async: ClassVar[bool] = True

    def __init__(self, database: Database[Tx], hold_s: float) -> None:
        super().__init__(_outside.BoundedRule(database, hold_s))
