"""Case 42: a store that really fails, by another program's lock and by a disk that takes no more."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from amends import SagaStatus
from amends.v1 import orchestrator_pb2
from tests.acceptance.harness import SQLITE_ONLY, THREE, Gate, Process, Refusal, World, refusal_of, refuse
from tests.postgres import CannotRun, Database, postgres

REFUSED_S = 60.0
"""The server waits some seconds for a lock before it refuses."""


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Another program holds the database for as long as the block lasts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def no_more_writes(pid: int) -> Generator[None]:
    """No file can be written by the process, as on a broken disk, for as long as the block lasts."""
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    with suppress(ProcessLookupError):  # it was killed meanwhile
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def postgresql() -> Generator[Database]:
    """A database server of the test's own, which it may stop."""
    try:
        with postgres() as database:
            yield database
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


async def refused_start(world: World, saga: str) -> Refusal:
    request = orchestrator_pb2.StartSagaRequest(
        saga_id=saga, definition=orchestrator_pb2.DefinitionRef(name=THREE.name)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.wire.orchestrator.StartSaga(request, timeout=REFUSED_S)
    return refusal_of(caught.value)


async def status(world: World, saga: str) -> SagaStatus | None:
    """The saga's status; None if the server cannot tell it now."""
    request = orchestrator_pb2.GetSagaRequest(saga_id=saga)
    try:
        return SagaStatus.of((await world.wire.orchestrator.GetSaga(request, timeout=REFUSED_S)).saga.status)
    except grpc.aio.AioRpcError as error:
        if refusal_of(error).reason != "STORE_UNAVAILABLE":
            raise
        return None


async def survive(world: World, server: Process, forth: Gate, back: Gate) -> None:
    """While the store fails: answers come in, and nothing follows from them."""
    forth.release()
    back.release()
    refusal = await refused_start(world, "late")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    await server.logged("saga_not_recorded", '"forth"', timeout_s=REFUSED_S)
    await server.logged("saga_not_recorded", '"back"', timeout_s=REFUSED_S)
    assert await status(world, "forth") in (SagaStatus.RUNNING, None)
    assert await status(world, "back") in (SagaStatus.COMPENSATING, None)
    assert world.ledger.names("forth") == ["one", "two"]
    assert world.ledger.names("back") == ["one", "two", "undo one"]


async def recover(world: World) -> None:
    """When it is back: everything goes on, and nothing is asked twice."""
    assert (await world.settled("forth")).status is SagaStatus.COMPLETED
    assert (await world.settled("back")).status is SagaStatus.COMPENSATED
    assert world.ledger.names("forth") == ["one", "two", "three"]
    assert world.ledger.names("back") == ["one", "two", "undo one"]
    assert world.ledger.effects("back") == []
    assert world.ledger.calls("late") == []
    late = await world.client.start(THREE.name, None, id="late")
    assert (await world.settled(late)).status is SagaStatus.COMPLETED
    assert world.ledger.names("late") == ["one", "two", "three"]


async def begin(world: World) -> tuple[Gate, Gate]:
    """Start a saga that is held in its second step, and one that is held in its rollback."""
    forth, back = Gate(), Gate()
    world.worker.on("two", forth.after(), saga="forth")
    world.worker.on("two", refuse("NO"), saga="back")
    world.worker.on("undo one", back.after(), saga="back")
    await world.start(THREE, id="forth")
    await world.start(THREE, id="back")
    await forth.reached()
    await back.reached()
    return forth, back


async def test_d42_a_database_server_that_is_down_stops_everything_and_changes_nothing(tmp_path: Path) -> None:
    with postgresql() as database:
        server = Process(database.new_url())
        async with World.opened(tmp_path, server) as world:
            forth, back = await begin(world)
            database.stop()
            await survive(world, server, forth, back)
            database.start()
            await recover(world)


@SQLITE_ONLY
async def test_d42_a_locked_database_stops_everything_and_changes_nothing(
    killable: World, server: Process, tmp_path: Path
) -> None:
    forth, back = await begin(killable)
    with locked(tmp_path / "amends.db"):
        await survive(killable, server, forth, back)
    await recover(killable)


@SQLITE_ONLY
async def test_d42_a_disk_that_takes_no_more_stops_everything_and_changes_nothing(
    killable: World, server: Process
) -> None:
    forth, back = await begin(killable)
    with no_more_writes(server.pid):
        await survive(killable, server, forth, back)
    await recover(killable)


@SQLITE_ONLY
async def test_d42_a_kill_in_the_outage_loses_nothing_that_was_acknowledged(killable: World, server: Process) -> None:
    """The answers that could not be recorded are lost with the process, so they are asked for again."""
    forth, back = await begin(killable)
    with no_more_writes(server.pid):
        await survive(killable, server, forth, back)
        await server.kill()
    await server.start()
    assert (await killable.settled("forth")).status is SagaStatus.COMPLETED
    assert (await killable.settled("back")).status is SagaStatus.COMPENSATED
    assert killable.ledger.names("forth") == ["one", "two", "two", "three"]
    assert killable.ledger.names("back") == ["one", "two", "undo one", "undo one"]
    assert killable.ledger.effects_ever("forth", "two") == 1
    assert killable.ledger.calls("late") == []
