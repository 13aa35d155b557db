"""Case 46 as a client of several orchestrators sees it: it names them all, and one of them dies under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from amends import Client, SagaHandle, SagaStatus
from tests.acceptance.harness import THREE, Gate, Process, World, definition, in_progress, step
from tests.postgres import Database, schema_of

SAGAS = 120
AT_ONCE = 12
WAIT_S = 60

LEASE_S = 20.0
"""So long that nothing is asked again because a busy machine stood still."""


@pytest.fixture
async def fleet(tmp_path: Path, database: Database) -> AsyncIterator[tuple[World, list[Process], Client]]:
    """Three orchestrators that share a database evenly, and a client of all."""
    url = database.new_url()
    servers = [Process(url) for _ in range(3)]
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World.opened(tmp_path, servers[0]))
        await world.client.register(THREE)
        await asyncio.gather(*(server.start() for server in servers[1:]))
        for server in servers[1:]:
            stack.push_async_callback(server.stop)
        even = "select count(*) = 3 from (select 1 from partition group by owner having count(*) in (21, 22)) as shares"
        await asyncio.to_thread(database.wait_for, even, schema_of(url))
        client = await stack.enter_async_context(Client(",".join(server.address for server in servers)))
        yield world, servers, client


async def run_one(client: Client, number: int, begun: asyncio.Queue[str]) -> str:
    saga = await client.start(THREE.name, {"number": number})
    begun.put_nowait(saga.id)
    events = [event.sequence async for event in saga.watch()]
    view = await saga.status()
    assert view.status is SagaStatus.COMPLETED
    assert events == list(range(1, view.sequence + 1))
    return saga.id


async def load(client: Client, begun: asyncio.Queue[str]) -> list[str]:
    """Run many sagas, some at a time, each watched from its first event to its last."""
    numbers = iter(range(SAGAS))

    async def worker() -> list[str]:
        return [await run_one(client, number, begun) for number in numbers]

    return [id for ids in await asyncio.gather(*(worker() for _ in range(AT_ONCE))) for id in ids]


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_e46_the_end_of_one_under_load_is_not_noticed(
    fleet: tuple[World, list[Process], Client], how: str
) -> None:
    world, servers, client = fleet
    begun: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(WAIT_S):
        running = asyncio.create_task(load(client, begun))
        for _ in range(SAGAS // 4):
            await begun.get()
        await getattr(servers[1], how)()
        ids = await running
    assert len(set(ids)) == SAGAS
    assert {saga.id async for saga in client.list()} == set(ids), "none was started that nobody asked for"
    for id in ids:
        assert [world.ledger.effects_ever(id, step) for step in ("one", "two", "three")] == [1, 1, 1]


async def test_e46_commands_reach_the_sagas_of_one_that_died(fleet: tuple[World, list[Process], Client]) -> None:
    world, servers, client = fleet
    world.worker.on("two", in_progress())
    sagas = [await client.start(THREE.name, None, id=f"order-{number}") for number in range(12)]
    for saga in sagas:
        await world.until(saga.id, "step_deferred")
    await servers[2].kill()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(steer(client, saga) for saga in sagas))
        views = await asyncio.gather(*(saga.wait() for saga in sagas))
    assert {view.status for view in views} == {SagaStatus.COMPENSATED}


async def steer(client: Client, saga: SagaHandle[object]) -> None:
    await client.pause(saga.id, reason="look")
    await client.resume(saga.id, reason="looked")
    await saga.cancel("changed my mind")


async def test_e46_calls_in_flight_end_where_they_are_when_another_one_joins(
    tmp_path: Path, database: Database
) -> None:
    """A step that may be tried once would be undone otherwise."""
    url = database.new_url()
    first, second = (Process(url, lease_s=LEASE_S) for _ in range(2))
    once = definition("once", step("one"), step("two", attempts=1), step("three"))
    async with World.opened(tmp_path, first) as world:
        await world.client.register(once)
        gates = [Gate() for _ in range(12)]
        sagas = []
        for number, gate in enumerate(gates):
            world.worker.on("two", gate.after(), saga=f"order-{number}")
            sagas.append(await world.client.start(once.name, None, id=f"order-{number}"))
            await gate.reached()
        await second.start()
        await first.logged("partitions", '"owned": 32')
        for gate in gates:
            gate.release()
        async with asyncio.timeout(WAIT_S):
            views = [await saga.wait() for saga in sagas]
            await second.logged("partitions", '"owned": 32')
        await second.stop()
    assert {view.status for view in views} == {SagaStatus.COMPLETED}
    # What begins just when its saga is handed over may be lost on the way and asked again; what was in flight is not.
    assert {each.attempts for view in views for each in view.steps if each.id == "two"} == {1}
