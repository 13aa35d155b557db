"""Floods: watchers by the thousand or that read nothing, messages above all limits, large starts. Others go on."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from amends.payloads import encode
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc, payload_pb2, saga_pb2
from amends_server.config import WATCHERS_MAX
from amends_server.service import orchestrator as orchestrator_module
from amends_server.service import starting
from amends_server.store.protocol import Append, StoreError
from amends_server.store.sqlite import SqliteStore
from tests.acceptance.harness import Gate, Process, World, definition, in_progress, refusal_of, step, succeed

MIB = 1 << 20
WAIT_S = 30.0
GROWTH_MAX = 300 * MIB
"""Far below what would be held if it were held: half a gigabyte in each of these tests, or more."""

SILENT, WIDE_STEPS, WIDE_BYTES = 40, 100, 150_000
"""Watchers that read nothing of a saga with fifteen megabytes of events."""

REFUSED = int(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])

Watch = grpc.aio.UnaryStreamCall[orchestrator_pb2.WatchSagaRequest, orchestrator_pb2.WatchSagaResponse]


@pytest.fixture
async def flooded(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose orchestrator has a process, and so a memory, of its own."""
    async with World.opened(tmp_path, Process(tmp_path / "amends.db")) as world:
        await world.client.register(definition("known", "one"))
        yield world


def memory_bytes(world: World) -> int:
    """What the orchestrator has in memory now."""
    assert isinstance(world.orchestrator, Process)
    pages = int(Path(f"/proc/{world.orchestrator.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def goes_on(world: World, saga_id: str) -> None:
    """Run a saga of somebody else."""
    async with asyncio.timeout(WAIT_S):
        await (await world.client.start("known", 1, id=saga_id)).result()


def watch(channel: grpc.aio.Channel, saga_id: str) -> Watch:
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
    return stub.WatchSaga(orchestrator_pb2.WatchSagaRequest(saga_id=saga_id))


async def channels(world: World, count: int, stack: AsyncExitStack) -> list[grpc.aio.Channel]:
    """Connections of their own: what piles up in one holds up no other."""
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    address = world.orchestrator.address
    return [await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(count)]


async def test_i38_idle_watchers_cost_little_and_more_than_may_be_are_refused(flooded: World) -> None:
    flooded.worker.on("one", in_progress(), saga="waits")
    await flooded.client.start("known", 1, id="waits")
    before = memory_bytes(flooded)
    async with AsyncExitStack() as stack:
        some = await channels(flooded, 12, stack)
        watches = [watch(some[number % len(some)], "waits") for number in range(WATCHERS_MAX)]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(each.read() for each in watches))
            refused = [watch(some[0], "waits") for _ in range(50)]
            codes = await asyncio.gather(*(each.code() for each in refused))
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert memory_bytes(flooded) - before < GROWTH_MAX
        await goes_on(flooded, "other")


async def test_i38_watchers_that_read_nothing_make_no_memory_grow(flooded: World) -> None:
    wide = definition("wide", *(step(f"s{number}", after=[]) for number in range(WIDE_STEPS)), output={})
    for number in range(WIDE_STEPS):
        flooded.worker.on(f"s{number}", succeed("x" * WIDE_BYTES))
    await flooded.run(wide, id="wide")
    before = memory_bytes(flooded)
    async with AsyncExitStack() as stack:
        silent = [watch(channel, "wide") for channel in await channels(flooded, SILENT, stack)]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(each.read() for each in silent))
        await goes_on(flooded, "other")
        assert memory_bytes(flooded) - before < GROWTH_MAX


async def test_i42_a_flood_of_messages_that_are_too_large_is_refused_and_others_go_on(flooded: World) -> None:
    before = memory_bytes(flooded)
    start = flooded.wire.channel.unary_unary("/amends.v1.OrchestratorService/StartSaga")
    flood = bytes(8 * MIB)
    for round_number in range(5):
        calls: list[Any] = [start(flood, timeout=WAIT_S) for _ in range(20)]
        assert set(await asyncio.gather(*(call.code() for call in calls))) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await goes_on(flooded, f"other-{round_number}")
    assert memory_bytes(flooded) - before < GROWTH_MAX


ROOM_STARTS, SINGLE, IN_SESSION = 8, 7, 3
"""Starts that there is room for, and that come: by single calls, and in each of two sessions."""


def large_start(saga_id: str, **which: str) -> orchestrator_pb2.StartSagaRequest:
    """A bit more than half a megabyte."""
    return orchestrator_pb2.StartSagaRequest(
        saga_id=saga_id,
        definition=orchestrator_pb2.DefinitionRef(**which),
        input=payload_pb2.Payload(json=f'"{"x" * (MIB // 2)}"'),
    )


async def start_alone(
    channel: grpc.aio.Channel, start: orchestrator_pb2.StartSagaRequest, codes: asyncio.Queue[int]
) -> None:
    try:
        await orchestrator_pb2_grpc.OrchestratorServiceStub(channel).StartSaga(start)
        codes.put_nowait(0)
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), refusal
        assert "try again a little later" in refusal.message
        codes.put_nowait(REFUSED)


async def start_in_session(
    channel: grpc.aio.Channel, some: list[orchestrator_pb2.StartSagaRequest], codes: asyncio.Queue[int]
) -> None:
    stream = orchestrator_pb2_grpc.OrchestratorServiceStub(channel).Session()
    sent = [orchestrator_pb2.SessionStart(id=number, start=start) for number, start in enumerate(some)]
    await stream.write(orchestrator_pb2.OrchestratorServiceSessionRequest(starts=sent, result_credits=len(sent)))
    told = 0
    while told < len(sent):
        response = await stream.read()
        assert isinstance(response, orchestrator_pb2.OrchestratorServiceSessionResponse), response
        for outcome in response.outcomes:
            codes.put_nowait(outcome.status_code)
        told += len(response.outcomes)
    stream.cancel()


async def test_i42_outcomes_that_wait_for_their_steps_hold_no_more_bytes_than_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator_module, "OUTCOMES_UNDER_WAY_BYTES_MAX", 1_000)
    async with World.opened(tmp_path) as world, asyncio.timeout(WAIT_S):
        gate = Gate()
        world.worker.on("one", gate.before(in_progress()))
        await world.start(definition("one", "one"))
        await gate.reached()
        token = world.ledger.calls("s", "one")[-1].execute_request.call.completion_token
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=encode("x" * 2_000))
        request = orchestrator_pb2.CompleteStepRequest(saga_id="s", step="one", reply=reply, token=token)
        bring = world.wire.orchestrator.CompleteStep
        bringing = [asyncio.ensure_future(bring(request)) for _ in range(2)]
        (refused,), (waiting,) = await asyncio.wait(bringing, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused
        assert refusal_of(caught.value).reason == "OVERLOADED"
        gate.release()
        assert (await waiting).saga.saga_id == "s"
        assert (await bring(request)).saga.status == saga_pb2.SAGA_STATUS_COMPLETED  # what was counted is let go of


async def test_i42_starts_of_all_clients_together_hold_no_more_bytes_than_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow, and each client is within its own limits. Twice, since what is counted must be let go of."""
    disk, commit = asyncio.Event(), SqliteStore.commit

    async def slow(store: SqliteStore, appends: Sequence[Append]) -> list[StoreError | None]:
        await disk.wait()
        return await commit(store, appends)

    monkeypatch.setattr(SqliteStore, "commit", slow)
    monkeypatch.setattr(starting, "STARTS_UNDER_WAY_BYTES_MAX", ROOM_STARTS * (MIB // 2))
    async with World.opened(tmp_path) as world, AsyncExitStack() as stack:
        stack.callback(disk.set)  # or a failure would leave the server waiting
        some = await channels(world, 4, stack)
        registering = orchestrator_pb2.RegisterDefinitionRequest(definition=definition("known", "one"))
        known = (await world.wire.orchestrator.RegisterDefinition(registering)).definition
        for turn in range(2):
            disk.clear()
            codes = asyncio.Queue[int]()
            by_digest = [large_start(f"{turn}-digest-{n}", digest=known.digest) for n in range(IN_SESSION)]
            by_name = [large_start(f"{turn}-name-{n}", name=known.name) for n in range(IN_SESSION)]
            alone = [large_start(f"{turn}-alone-{n}", name=known.name) for n in range(SINGLE)]
            async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as clients:
                for number, start in enumerate(alone):
                    clients.create_task(start_alone(some[number % 2], start, codes))
                clients.create_task(start_in_session(some[2], by_digest, codes))
                clients.create_task(start_in_session(some[3], by_name, codes))
                refused = [await codes.get() for _ in range(SINGLE + 2 * IN_SESSION - ROOM_STARTS)]
                assert set(refused) == {REFUSED}
                assert codes.empty()
                disk.set()
                assert {await codes.get() for _ in range(ROOM_STARTS)} == {0}
            await goes_on(world, f"other-{turn}")
