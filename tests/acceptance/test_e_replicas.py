"""Case 46: several orchestrators on one database, which share its sagas and take over what a dead one leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import grpc
import pytest

from amends import Client, EventKind, FailedPrecondition, NotFound, Resolution, SagaStatus
from amends.ids import new_saga_id_of
from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from amends_server.store.partition import partition_of
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import SagaKey
from tests.acceptance.harness import (
    THREE,
    Gate,
    Process,
    ScriptedParticipant,
    Wire,
    World,
    definition,
    in_progress,
    step,
)
from tests.postgres import Database, schema_of
from tests.server.test_metrics import read as read_figures

SAGAS = 40
WAIT_S = 60
DRAIN_S = 20.0
"""Far longer than what goes on beside a call that keeps the first one from ending."""

LEASE_S = 20.0
"""So long that nothing is taken over because a busy machine stood still."""

SHORT_LEASE_S = 3.0
"""Where one dies, and the other one has to wait for it."""

IDS = [f"order-{number}" for number in range(8)]
"""Of sagas that belong some to the one orchestrator, and some to the other."""

Replicas = tuple[World, list[Process], list[Client]]


@pytest.fixture
async def replicas(tmp_path: Path, database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    """Two orchestrators that share a database evenly, and a client of each; the world is that of the first.

    The parameter is the length of leases, in seconds.
    """
    url, lease_s = database.new_url(), getattr(request, "param", LEASE_S)
    servers = [
        Process(url, lease_s=lease_s, drain_s=DRAIN_S),
        Process(url, lease_s=lease_s, metrics="127.0.0.1:0"),
    ]
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World.opened(tmp_path, servers[0]))
        await world.client.register(THREE)
        await servers[1].start()
        stack.push_async_callback(servers[1].stop)
        other = await stack.enter_async_context(Client(servers[1].address))
        even = "select count(*) = 2 from (select 1 from partition group by owner having count(*) = 32) as shares"
        await asyncio.to_thread(database.wait_for, even, schema_of(url))
        await servers[0].logged("partitions", '"owned": 32')
        await servers[1].logged("partitions", '"owned": 32')
        yield world, servers, [world.client, other]


async def figures(server: Process) -> dict[str, float]:
    """What the orchestrator counts."""
    listening = next(json.loads(line) for line in server.log if '"listening"' in line)
    return await asyncio.to_thread(read_figures, listening["metrics"])


async def test_e46_both_run_sagas_and_every_action_is_done_once(replicas: Replicas) -> None:
    world, _, clients = replicas
    sagas = [await clients[number % 2].start(THREE.name, None) for number in range(SAGAS)]
    async with asyncio.timeout(WAIT_S):
        views = await asyncio.gather(*(saga.wait() for saga in sagas))
    assert {view.status for view in views} == {SagaStatus.COMPLETED}
    for saga in sagas:
        assert world.ledger.names(saga.id) == ["one", "two", "three"]


async def test_e46_one_that_runs_no_sagas_starts_them_at_another_one(tmp_path: Path, database: Database) -> None:
    """As one does that has just joined: here there is nothing left for it, so that it stays so."""
    store = PostgresStore(url := database.new_url())
    await store.open()
    await store.close()
    one = "update meta set value = 1 where name = 'partitions'; delete from partition where id > 0"
    database.sql(one, schema_of(url))
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(World.opened(tmp_path, Process(url, lease_s=LEASE_S)))
        await world.client.register(THREE)
        await (joined := Process(url, lease_s=LEASE_S)).start()
        stack.push_async_callback(joined.stop)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(joined.address))
        request = orchestrator_pb2.StartSagaRequest(wait=True)
        request.definition.name = THREE.name
        response = await Wire.on(channel).orchestrator.StartSaga(request, timeout=WAIT_S)
    assert (response.created, response.saga.status) == (True, saga_pb2.SAGA_STATUS_COMPLETED)
    assert world.ledger.names(response.saga.saga_id) == ["one", "two", "three"]


async def test_e46_each_shows_and_watches_the_sagas_of_the_other(replicas: Replicas) -> None:
    world, _, clients = replicas
    gate = Gate()
    world.worker.on("two", gate.after())
    mine = await clients[0].start(THREE.name, None)
    await gate.reached()
    assert (await clients[1].get(mine.id)).status is SagaStatus.RUNNING
    there = clients[1].saga(None, mine.id)
    waiting = asyncio.create_task(there.wait())
    watching = asyncio.create_task(_watch(there))
    gate.release()
    async with asyncio.timeout(WAIT_S):
        assert (await waiting).status is SagaStatus.COMPLETED
        assert await watching == list(range(1, (await mine.status()).sequence + 1))


@pytest.mark.parametrize("replicas", [SHORT_LEASE_S], indirect=True)
async def test_e46_a_dead_owners_sagas_are_taken_over(replicas: Replicas) -> None:
    world, servers, clients = replicas
    before = await figures(servers[1])
    assert before["amends_partitions_owned"] == 32
    assert before["amends_lease_renewals_failed_total"] >= 0
    assert 0 <= before["amends_lease_renewal_age_seconds"] < WAIT_S
    gates = [Gate() for _ in range(6)]
    sagas = []
    for gate in gates:
        saga = await clients[0].start(THREE.name, None)
        world.worker.on("two", gate.after(), saga=saga.id)
        sagas.append(saga)
    done = [await clients[1].start(THREE.name, None) for _ in range(6)]
    await servers[0].kill()
    for gate in gates:
        gate.release()
    async with asyncio.timeout(WAIT_S):
        views = await asyncio.gather(*(clients[1].saga(None, saga.id).wait() for saga in [*sagas, *done]))
    assert {view.status for view in views} == {SagaStatus.COMPLETED}
    after = await figures(servers[1])
    assert after["amends_partitions_owned"] == 64
    assert after["amends_partitions_gained_total"] >= 64
    assert after["amends_sagas_taken_over_total"] > before["amends_sagas_taken_over_total"]
    for saga in [*sagas, *done]:
        assert [world.ledger.effects_ever(saga.id, step) for step in ("one", "two", "three")] == [1, 1, 1]


async def test_e46_an_orderly_end_hands_over_without_waiting(replicas: Replicas) -> None:
    world, servers, clients = replicas
    await servers[0].stop()
    await servers[1].logged("partitions", '"owned": 64')
    saga = await clients[1].start(THREE.name, None, id="any")
    assert (await saga.wait()).status is SagaStatus.COMPLETED
    assert world.ledger.names("any") == ["one", "two", "three"]


async def test_e46_starts_under_ids_of_the_client_s_making_are_run_where_they_are_asked_for(
    replicas: tuple[World, list[Process], list[Client]],
) -> None:
    """They are not passed on, and their ends need not be asked for."""
    _, servers, clients = replicas
    sagas = [await clients[1].start(THREE.name, None) for _ in range(SAGAS)]
    async with asyncio.timeout(WAIT_S):
        assert {(await saga.wait()).status for saga in sagas} == {SagaStatus.COMPLETED}
    shown = await figures(servers[1])
    assert shown.get('amends_calls_forwarded_total{method="StartSaga",outcome="answered"}', 0) < SAGAS / 4


async def test_e46_an_orderly_end_that_takes_its_time_keeps_no_start_waiting(
    replicas: tuple[World, list[Process], list[Client]],
) -> None:
    """Who is about to end says so to clients, and they make ids for the others."""
    world, servers, clients = replicas
    gate = Gate()
    slow = await _id_at(servers[0], clients[0])
    world.worker.on("one", gate.after(), saga=slow)
    await clients[0].start(THREE.name, None, id=slow)
    await gate.reached()
    async with Client(",".join(server.address for server in servers)) as client, asyncio.timeout(WAIT_S):
        those = client._connection.replicas._all
        while not all(each.starts._session is not None for each in those):
            await client.start(THREE.name, None)
        stopping = asyncio.create_task(servers[0].stop())
        while not any(each.starts.has_no_share for each in those):  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.01)
        for _ in range(8):
            await client.start(THREE.name, None, wait=True)
        assert not stopping.done()
        gate.release()
        await stopping


async def test_e46_an_orderly_end_keeps_no_start_and_no_command_waiting_whatever_its_id(replicas: Replicas) -> None:
    """What is at rest is handed over at once; of what is not, starts and commands are recorded meanwhile."""
    world, servers, clients = replicas
    gate = Gate()
    slow = await _id_at(servers[0], clients[0])
    partition, other = partition_of(SagaKey("default", slow), 64), await _id_at(servers[0], clients[0])
    while partition_of(SagaKey("default", other), 64) == partition:
        other = await _id_at(servers[0], clients[0])
    beside = new_saga_id_of("default", 64, {partition})
    world.worker.on("one", gate.after(), saga=slow)
    await clients[0].start(THREE.name, None, id=slow)
    await gate.reached()
    stopping = asyncio.create_task(servers[0].stop())
    await servers[0].logged("stopping")
    async with asyncio.timeout(WAIT_S):
        assert (await (await clients[1].start(THREE.name, None, id=other)).wait()).status is SagaStatus.COMPLETED
        assert (await (await clients[1].start(THREE.name, None, id=beside)).status()).status is SagaStatus.PENDING
        assert (await clients[1].pause(slow, reason="look")).paused
        assert not (await clients[1].resume(slow, reason="looked")).paused
        assert not stopping.done()
        gate.release()
        for id in (slow, beside):
            assert (await clients[1].saga(None, id).wait()).status is SagaStatus.COMPLETED
        await stopping
    for id in (slow, beside, other):
        assert world.ledger.names(id) == ["one", "two", "three"]


async def _id_at(server: Process, client: Client) -> str:
    """An id that belongs to that orchestrator."""
    shown = await client.replicas()
    owner = next(each.replica_id for each in shown.replicas if each.address == server.address)
    owned = {each.number for each in shown.partitions if each.replica_id == owner}
    return new_saga_id_of("default", len(shown.partitions), owned)


async def _watch(saga: object) -> list[int]:
    return [event.sequence async for event in saga.watch()]  # type: ignore[attr-defined]


async def test_e46_commands_and_repeated_starts_reach_the_owner_through_any(replicas: Replicas) -> None:
    world, servers, clients = replicas
    gate = Gate()
    world.worker.on("two", gate.after())
    for id in IDS:
        await clients[0].start(THREE.name, None, id=id)
    await gate.reached()
    async with grpc.aio.insecure_channel(servers[1].address) as channel:
        other = Wire.on(channel).orchestrator
        for id in IDS:
            assert (await clients[1].start(THREE.name, None, id=id)).id == id
            await other.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id=id, reason="changed my mind"))
    gate.release()
    shown = await figures(servers[1])
    assert 0 < shown['amends_calls_forwarded_total{method="CancelSaga",outcome="answered"}'] < len(IDS)
    async with asyncio.timeout(WAIT_S):
        views = [await clients[0].saga(None, id).wait() for id in IDS]
    assert {view.status for view in views} == {SagaStatus.COMPENSATED}
    assert all(world.ledger.effects(id) == [] for id in IDS)
    with pytest.raises(FailedPrecondition):
        await clients[0].fail(IDS[0], reason="too late")
    with pytest.raises(FailedPrecondition):
        await clients[1].fail(IDS[0], reason="too late")
    for client in clients:
        with pytest.raises(NotFound):
            await client.get("nobody")


async def test_e46_the_journal_names_who_called_whoever_passed_it_on(replicas: Replicas) -> None:
    world, servers, clients = replicas
    gate = Gate()
    world.worker.on("two", gate.after())
    async with grpc.aio.insecure_channel(servers[1].address) as channel:
        other = Wire.on(channel)
        for id in IDS:
            start = orchestrator_pb2.StartSagaRequest(saga_id=id)
            start.definition.name = THREE.name
            await other.orchestrator.StartSaga(start)
            forged = (("amends-forwarded", "1"), ("amends-caller-bin", b"x" * 20 + b"somebody else"))
            pause = operator_pb2.PauseSagaRequest(saga_id=id, reason="look")
            with suppress(grpc.aio.AioRpcError):  # of those of the other one, which this one does not pass on
                await other.operator.PauseSaga(pause, metadata=forged)
            await other.operator.PauseSaga(pause)
    events = [event for id in IDS for event in await world.journal(id)]
    callers = {event.principal for event in events if event.kind in ("saga_started", "saga_paused")}
    assert len(callers) == 1, "one connection has one name"
    assert callers.pop().startswith("ipv4:")
    await clients[0].resume(IDS[0], reason="go on")
    gate.release()


async def test_e49_two_namespaces_see_only_their_own_sagas_at_any_orchestrator(replicas: Replicas) -> None:
    _, servers, clients = replicas
    async with AsyncExitStack() as stack:
        spaces = {
            name: [await stack.enter_async_context(Client(server.address, namespace=name)) for server in servers]
            for name in ("north", "south")
        }
        await spaces["north"][0].register(THREE)
        with pytest.raises(NotFound):
            await spaces["south"][1].start(THREE.name, None)
        await spaces["south"][1].register(definition("three", "one"))
        async with asyncio.timeout(WAIT_S):
            for name, (first, second) in spaces.items():
                for number, id in enumerate(IDS):
                    saga = await (first, second)[number % 2].start(THREE.name, None, id=id, labels={"in": name})
                    assert (await saga.wait()).status is SagaStatus.COMPLETED
        for clients_there in spaces.values():
            for one in clients_there:
                assert sorted([saga.id async for saga in one.list()]) == IDS
                assert (
                    len([event async for event in one.saga(None, IDS[0]).watch()]) == (await one.get(IDS[0])).sequence
                )
        for one, other in (("north", "south"), ("south", "north")):
            assert [saga async for saga in spaces[one][0].list(labels={"in": other})] == []
        assert len((await spaces["north"][1].get(IDS[0])).steps) == 3
        assert len((await spaces["south"][0].get(IDS[0])).steps) == 1
        bulk = await spaces["south"][1].cancel_all(reason="none left", dry_run=True)
        assert (bulk.changed, bulk.remaining) == (0, 0)
    for client in clients:
        assert [saga async for saga in client.list()] == []
        with pytest.raises(NotFound):
            await client.get(IDS[0])


@pytest.mark.parametrize("replicas", [SHORT_LEASE_S], indirect=True)
async def test_e46_operators_see_who_owns_what(replicas: Replicas) -> None:
    _, servers, clients = replicas
    for client, server in zip(clients, servers, strict=True):
        shown = await client.replicas()
        owners = {each.address: each for each in shown.replicas}
        assert sorted(owners) == sorted(each.address for each in servers)
        assert [each.address for each in shown.replicas if each.answering] == [server.address]
        assert all(0 < each.lease_left.ToMicroseconds() <= SHORT_LEASE_S * 1e6 for each in owners.values())
        assert [each.number for each in shown.partitions] == list(range(64))
        for owner in owners.values():
            owned = [each for each in shown.partitions if each.replica_id == owner.replica_id]
            assert len(owned) == 32
            assert all(each.epoch >= 1 for each in owned)
            assert all(each.claim_time.ToMicroseconds() >= owner.start_time.ToMicroseconds() for each in owned)
    await servers[0].kill()
    await servers[1].logged("partitions", '"owned": 64')
    shown = await clients[1].replicas()
    dead = next(each for each in shown.replicas if not each.answering)
    assert dead.address == servers[0].address
    assert dead.lease_left.ToMicroseconds() < 0
    assert {each.replica_id for each in shown.partitions} == {
        each.replica_id for each in shown.replicas if each.answering
    }


async def test_e46_bulk_forms_are_for_the_sagas_of_all(replicas: Replicas) -> None:
    world, _, clients = replicas
    world.worker.on("two", in_progress())
    ids = [f"many-{number}" for number in range(12)]
    for id in ids:
        await clients[0].start(THREE.name, None, id=id, labels={"batch": "one"})
        await world.until(id, EventKind.STEP_DEFERRED)
    batch = {"batch": "one"}
    for client in clients:
        dry = await client.pause_all(reason="audit", dry_run=True, limit=5, labels=batch)
        assert (dry.changed, dry.remaining, dry.failures) == (5, 7, {})
    some = await clients[1].pause_all(reason="audit", limit=5, labels=batch)
    assert (some.changed, some.remaining, some.failures) == (5, 7, {})
    rest = await clients[0].pause_all(reason="audit", labels=batch)
    assert (rest.changed, rest.remaining, rest.failures) == (7, 0, {})
    for id in ids:
        assert (await clients[0].get(id)).paused
    assert (await clients[1].resume_all(reason="audited", labels=batch)).changed == 12
    settled = await clients[0].resolve_all(
        "two", Resolution.SUCCEEDED, output=2, reason="seen", status=SagaStatus.RUNNING, labels=batch
    )
    assert (settled.changed, settled.remaining, settled.failures) == (12, 0, {})
    async with asyncio.timeout(WAIT_S):
        views = [await clients[1].saga(None, id).wait() for id in ids]
    assert {view.status for view in views} == {SagaStatus.COMPLETED}


async def test_e46_what_is_registered_at_one_is_known_to_all(replicas: Replicas) -> None:
    world, _, clients = replicas
    late = definition(
        "late", step("one", participant="late", attempts=-1)
    )  # it is tried until its move is known to all
    first, second = (ScriptedParticipant("late", world.ledger) for _ in range(2))
    async with AsyncExitStack() as stack:
        for participant in (first, second):
            await participant.start()
            stack.push_async_callback(participant.close)
        await clients[0].put_participant("late", first.address)
        await clients[1].register(late)
        await _all_complete(clients, "before")
        await first.stop()
        await clients[1].put_participant("late", second.address)
        await _all_complete(clients, "after")
        await clients[0].delete_participant("late")
        assert [each.name async for each in clients[1].participants()] == ["worker"]
        with pytest.raises(NotFound):
            await clients[1].delete_participant("late")


async def _all_complete(clients: list[Client], name: str) -> None:
    """Run sagas of `late` that belong to the one and to the other."""
    sagas = [await clients[number % 2].start("late", None, id=f"{name}-{number}") for number in range(8)]
    async with asyncio.timeout(WAIT_S):
        views = await asyncio.gather(*(saga.wait() for saga in sagas))
    assert {view.status for view in views} == {SagaStatus.COMPLETED}
