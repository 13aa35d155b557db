"""What can go wrong around a barrier: conflicts, deadlocks, cancellation, handlers and connections that misbehave."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import pytest
from sqlalchemy import ForeignKey, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from amends import Call, Participant, Refused, barrier
from amends.barrier._database import has_state
from amends.payloads import encode
from amends.v1 import participant_pb2, saga_pb2
from tests.barrier.kinds import KINDS, by_asyncpg, dialect, engine, shared_async
from tests.barrier.steps import Stepwise
from tests.barrier.world import ERROR, SUCCESS, SYSTEM_ERROR, Do, World

WAIT_S = 20


async def call(participant: Participant, key: str, action: str = "act", value: object = Do()) -> saga_pb2.Reply:
    request = participant_pb2.ExecuteRequest(
        call=participant_pb2.Call(step=action, key=key), action=action, input=encode(value)
    )
    return (await participant.servicer().Execute(request, None)).reply


async def test_a_deadlock_is_run_again_and_both_calls_succeed(postgres_urls: dict[str, str]) -> None:
    url, both = postgres_urls["read-committed"], asyncio.Barrier(2)
    async with asyncpg.create_pool(url, min_size=2) as pool:
        once = barrier.asyncpg(pool.acquire)
        await once.create_table()
        await pool.execute("CREATE TABLE IF NOT EXISTS place (name TEXT PRIMARY KEY, amount INT)")
        await pool.execute("INSERT INTO place VALUES ('x', 0), ('y', 0)")
        runs: list[str] = []
        mover = Participant("mover")

        @mover.action(barrier=once)
        async def act(request: str, call: Call, tx: Any) -> str:
            runs.append(request)
            call.relate(f"run {len(runs)}")
            for number, name in enumerate(request):
                await tx.execute("UPDATE place SET amount = amount + 1 WHERE name = $1", name)
                if number == 0 and len(runs) <= 2:
                    await asyncio.wait_for(both.wait(), WAIT_S)
            return request

        replies = await asyncio.gather(call(mover, "d1", value="xy"), call(mover, "d2", value="yx"))
        assert [reply.status for reply in replies] == [SUCCESS, SUCCESS]
        assert len(runs) >= 3, "the one that lost ran again"
        assert all(len(reply.related_services) == 1 for reply in replies), "what was rolled back is not told"
        assert await pool.fetchval("SELECT sum(amount) FROM place") == 4


async def test_a_conflict_of_the_business_is_run_again(postgres_urls: dict[str, str]) -> None:
    url, both = postgres_urls["serializable"], asyncio.Barrier(2)
    async with asyncpg.create_pool(url, min_size=2) as pool:
        once = barrier.asyncpg(pool.acquire)
        await once.create_table()
        await pool.execute("CREATE TABLE IF NOT EXISTS seat (taken_by TEXT)")
        seats, runs = Participant("seats"), 0

        @seats.action(barrier=once)
        async def act(request: str, call: Call, tx: Any) -> str:
            nonlocal runs
            runs += 1
            taken = await tx.fetchval("SELECT count(*) FROM seat")
            if runs <= 2:
                await asyncio.wait_for(both.wait(), WAIT_S)
            if taken:
                raise Refused("TAKEN")
            await tx.execute("INSERT INTO seat VALUES ($1)", request)
            return request

        replies = await asyncio.gather(call(seats, "s1", value="a"), call(seats, "s2", value="b"))
        assert {reply.status for reply in replies} == {SUCCESS, ERROR}
        assert all(reply.stored for reply in replies)
        assert (runs, await pool.fetchval("SELECT count(*) FROM seat")) == (3, 1)


async def test_a_refusal_that_is_made_of_a_conflict_is_none(tmp_path: Path) -> None:
    class ConflictError(Exception):
        sqlstate = "40001"

    runs = 0
    world = World(KINDS[0].make(str(tmp_path / "a.db"), AsyncExitStack()), KINDS[0].write, str(tmp_path / "a.db"))
    await world.prepare()

    @world.participant.action(barrier=world.barrier)
    def fragile(request: Do, call: Call, tx: Any) -> int:
        nonlocal runs
        runs += 1
        try:
            if runs == 1:
                raise ConflictError
        except ConflictError:
            raise Refused("BROKEN") from None
        return runs

    assert (await call(world.participant, "k", "fragile")).status == SUCCESS
    assert runs == 2


@pytest.mark.parametrize("name", ["sqlstate", "pgcode"])
def test_states_are_found_behind_other_exceptions(name: str) -> None:
    class DriverError(Exception):
        pass

    setattr(DriverError, name, "40P01")

    class WrapperError(Exception):
        orig: BaseException

    wrapper = WrapperError()
    wrapper.orig = DriverError()
    loop = ValueError()
    loop.__cause__ = loop
    assert has_state(wrapper)
    assert not has_state(loop)


@pytest.mark.parametrize("name", ["aiosqlite", "asyncpg", "psycopg-async", "async-core", "async-session"])
async def test_a_call_that_is_cancelled_anywhere_is_whole_or_not_there(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The connection is shared, so that what a cancelled call leaves behind would be in the way of the next."""
    async with AsyncExitStack() as stack:
        place, connection = await shared_connection(name, tmp_path, request, stack)
        kind = next(kind for kind in KINDS if kind.name == name and kind.postgres == (name != "aiosqlite"))
        for step in range(20):
            made, reached, numbers = kind.make(place, stack), asyncio.Event(), iter(range(100))

            async def pause(label: str) -> None:
                if next(numbers) == step:  # noqa: B023 - ends before the next step
                    reached.set()  # noqa: B023
                    await asyncio.sleep(0)  # lets the cancellation meet the statement itself

            made._database._connect = connection
            made._database = Stepwise(made._database, pause)
            world = World(made, kind.write, place, prefix=f"{name}{step}")
            await world.prepare()
            task = asyncio.ensure_future(world.execute("a"))
            await asyncio.wait([task, waiting := asyncio.ensure_future(reached.wait())], return_when="FIRST_COMPLETED")
            waiting.cancel()
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task])
            assert (len(world.effects("a")), world.state("a")) in ((0, None), (1, "succeeded"))
            assert (await asyncio.wait_for(world.execute("a"), WAIT_S)).status == SUCCESS
            assert world.effects("a") == ["do"]
        assert step > 5


async def shared_connection(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, stack: AsyncExitStack
) -> tuple[str, Any]:
    """A place, and what lends the only connection to it."""
    if name == "aiosqlite":
        place = str(tmp_path / "a.db")
        return place, shared_async(place, stack)
    place = request.getfixturevalue("postgres_urls")["read-committed"]
    if name.startswith("async-"):
        pooled = create_async_engine(dialect(place, "", "postgresql+asyncpg"), pool_size=1, max_overflow=0)
        stack.push_async_callback(pooled.dispose)
        return place, pooled.connect if name == "async-core" else async_sessionmaker(pooled)
    one: Any = await (asyncpg.connect(place) if name == "asyncpg" else psycopg.AsyncConnection.connect(place))
    stack.push_async_callback(one.close)
    lock = asyncio.Lock()

    @asynccontextmanager
    async def lend() -> AsyncIterator[Any]:
        async with lock:
            yield one

    return place, lend


async def test_a_connection_inside_a_transaction_is_refused(postgres_urls: dict[str, str], tmp_path: Path) -> None:
    @contextmanager
    def begun_sqlite() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def begun_psycopg() -> Iterator[psycopg.Connection]:
        with psycopg.connect(postgres_urls["read-committed"]) as connection:
            connection.execute("SELECT 1")
            yield connection

    @contextmanager
    def begun_session() -> Iterator[Session]:
        with Session(engine(str(tmp_path / "a.db"))) as session:
            session.execute(text("SELECT 1"))
            yield session

    @asynccontextmanager
    async def begun_aiosqlite() -> AsyncIterator[aiosqlite.Connection]:
        async with aiosqlite.connect(tmp_path / "a.db") as connection:
            await connection.execute("BEGIN")
            yield connection

    @asynccontextmanager
    async def begun_asyncpg() -> AsyncIterator[Any]:
        async with by_asyncpg(postgres_urls["read-committed"]) as connection, connection.transaction():
            yield connection

    plain: list[barrier.Barrier[Any]] = [
        barrier.sqlite3(begun_sqlite),
        barrier.psycopg(begun_psycopg),
        barrier.sqlalchemy(begun_session),
    ]
    for each in plain:
        with pytest.raises(barrier.BarrierError, match="inside a transaction"):
            each.create_table()
    for other in (barrier.aiosqlite(begun_aiosqlite), barrier.asyncpg(begun_asyncpg)):
        with pytest.raises(barrier.BarrierError, match="inside a transaction"):
            await other.create_table()


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    name: Mapped[str] = mapped_column(primary_key=True)
    stands_on: Mapped[str | None] = mapped_column(ForeignKey("shelf.name"))


async def test_objects_of_a_session_that_were_refused_are_not_kept(tmp_path: Path) -> None:
    sessions = sessionmaker(engine(str(tmp_path / "a.db")))
    Base.metadata.create_all(sessions.kw["bind"])
    once = barrier.sqlalchemy(sessions)
    once.create_table()
    shelves = Participant("shelves")

    @shelves.action(barrier=once)
    def act(request: str, call: Call, tx: Session) -> str:
        tx.add(Shelf(name=request))
        if request == "b":
            raise Refused("FULL")
        return request

    for name, status in (("a", SUCCESS), ("b", ERROR), ("a", SYSTEM_ERROR)):
        assert (await call(shelves, f"{name}{status}", value=name)).status == status
    with sessions() as session:
        assert [shelf.name for shelf in session.query(Shelf)] == ["a"]


def test_handlers_are_of_the_kind_of_their_barrier() -> None:
    plain, asynchronous = KINDS[0].make(":memory:", AsyncExitStack()), barrier.aiosqlite(lambda: aiosqlite.connect(""))
    participant = Participant("p")

    async def asynchronous_handler(request: Do, call: Call, tx: Any) -> int:
        return 1

    def plain_handler(request: Do, call: Call, tx: Any) -> int:
        return 1

    def short(request: Do, call: Call) -> int:
        return 1

    with pytest.raises(TypeError, match="must be plain"):
        participant.action(barrier=plain)(asynchronous_handler)
    with pytest.raises(TypeError, match="must be async"):
        participant.action(barrier=asynchronous)(plain_handler)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes 2 arguments"):
        participant.action(barrier=plain)(short)  # type: ignore[arg-type]
    served = participant.action(barrier=plain, name="other")(plain_handler)
    with pytest.raises(TypeError, match="takes 3 arguments"):
        served.compensation(plain_handler)  # type: ignore[arg-type]
    assert list(participant.actions) == ["other"]
