"""Sessions between clients and the orchestrator, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from amends import Call, Client, Completion, Participant, Refused, Saga, SagaStatus
from amends.errors import AlreadyExists, Compensated, NotFound, ResourceExhausted, RpcError, Stuck
from amends.participant.serve import serving as serving_participant
from amends.payloads import Opaque, encode
from amends.policies import PIVOT
from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc, saga_pb2
from amends_server.app import Server, serving
from amends_server.config import CALLS_IN_FLIGHT_MAX, load_settings
from amends_server.runner.reader import View
from amends_server.service import session as server_session
from amends_server.service.session import STARTS_MAX
from amends_server.store.protocol import SagaKey, StoredDefinition

WAIT_S = 30.0
kit = Participant("kit")
gate = asyncio.Event()
called: list[str] = []
waiting = asyncio.Event()
completions: list[Completion] = []
mended = False


@kit.action
async def echo(request: object) -> object:
    return request


@kit.action
async def held(request: object) -> object:
    called.append(str(request))
    await gate.wait()
    return request


@kit.action
async def refuse(request: object) -> object:
    raise Refused("NO", "never")


@kit.action
async def scan(request: object) -> Opaque:
    return Opaque(b"\x89", "image/png")


@kit.action
async def later(request: object, call: Call) -> object:
    completions.append(call.completion)
    waiting.set()
    call.later()


@later.compensation
async def unlater(request: object, done: object | None) -> None: ...


@echo.compensation
async def unecho(request: object, done: object | None) -> None:
    if request == "broken" and not mended:
        raise Refused("BROKEN", "cannot be undone yet")


@held.compensation
async def unheld(request: object, done: object | None) -> None: ...


@refuse.compensation
async def unrefuse(request: object, done: object | None) -> None: ...


@scan.compensation
async def unscan(request: object, done: Opaque | None) -> None: ...


def saga_of(name: str, *actions: Any) -> Saga[Any, Any]:
    saga: Saga[Any, Any] = Saga(name)
    for action in actions:
        saga.step(action)
    return saga


ECHO, HELD, REFUSED = saga_of("echo", echo), saga_of("held", held), saga_of("refused", echo, refuse)
LATER = saga_of("later", later)

Stream = grpc.aio.StreamStreamCall[pb.OrchestratorServiceSessionRequest, pb.OrchestratorServiceSessionResponse]


@pytest.fixture(autouse=True)
async def participant(server: Server) -> AsyncIterator[None]:
    global gate, mended, waiting
    gate, mended, waiting = asyncio.Event(), False, asyncio.Event()
    called.clear()
    async with serving_participant(kit, orchestrator=server.address):
        yield


@pytest.fixture
async def stream(server: Server) -> AsyncIterator[Stream]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        opened = orchestrator_pb2_grpc.OrchestratorServiceStub(channel).Session()
        yield opened
        opened.cancel()


async def test_a_thousand_results_are_waited_for_at_once(client: Client) -> None:
    async def one(number: int) -> object:
        return await (await client.start(ECHO, {"n": number}, id=f"s{number}")).result()

    async with asyncio.timeout(WAIT_S):
        results = await asyncio.gather(*(one(number) for number in range(1000)))
    assert results == [{"echo": {"n": number}} for number in range(1000)]


async def test_starts_are_begun_in_the_order_in_which_they_come(server: Server) -> None:
    """More at a time than a session takes; nobody is overtaken by more than fit into one turn of the participant."""
    gate.set()
    async with Client(server.address, timeout=WAIT_S) as client, asyncio.timeout(WAIT_S):

        async def one(number: int) -> None:
            await (await client.start(HELD, number)).result()

        await one(0)
        await asyncio.gather(*(one(number) for number in range(1, STARTS_MAX + 200)))
    assert max(abs(place - int(number)) for place, number in enumerate(called)) <= CALLS_IN_FLIGHT_MAX


async def test_failures_raise_what_they_raise_without_sessions(client: Client) -> None:
    saga = await client.start(REFUSED, 1)
    with pytest.raises(Compensated, match="NO: never") as caught:
        await saga.result()
    assert [step.status for step in caught.value.steps] == ["COMPENSATED", "FAILED"]


async def test_a_stuck_saga_that_is_mended_has_a_result_after_all(client: Client) -> None:
    global mended
    saga = await client.start(REFUSED, "broken")
    with pytest.raises(Stuck):
        await saga.result()
    mended = True
    await client.retry(saga.id, reason="mended")
    with pytest.raises(Compensated):
        await asyncio.wait_for(saga.result(), WAIT_S)


async def test_a07_repeated_starts_are_one_saga_and_other_content_is_refused(client: Client) -> None:
    first, second = await asyncio.gather(*(client.start(HELD, "x", id="same") for _ in range(2)))
    with pytest.raises(AlreadyExists) as caught:
        await client.start(HELD, "y", id="same")
    assert caught.value.reason == "SAGA_ALREADY_EXISTS"
    gate.set()
    assert await first.result() == await second.result() == {"held": "x"}
    third = await client.start(HELD, "x", id="same")
    assert await third.result() == {"held": "x"}
    assert called == ["x"]


async def test_refusals_carry_the_same_details_as_single_calls(client: Client, server: Server, stream: Stream) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        for request in (
            pb.StartSagaRequest(saga_id="a b", definition=pb.DefinitionRef(name="echo")),
            pb.StartSagaRequest(saga_id="a", definition=pb.DefinitionRef(name="nothing")),
            pb.StartSagaRequest(saga_id="a", definition=pb.DefinitionRef(digest="sha256:0")),
            pb.StartSagaRequest(saga_id="a"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.StartSaga(request)
            single = dict(iter(caught.value.trailing_metadata() or ()))["grpc-status-details-bin"]
            (outcome,) = await outcomes(stream, 1, request)
            assert outcome.status_code == caught.value.code().value[0]
            assert details(outcome.status_details) == details(single)


async def test_the_sdk_maps_refusals_of_a_session(client: Client) -> None:
    with pytest.raises(NotFound) as caught:
        await client.start("nothing", 1)
    assert caught.value.reason == "DEFINITION_NOT_FOUND"
    with pytest.raises(RpcError) as invalid:
        await client.start(ECHO, 1, id="a b")
    assert [violation.field for violation in invalid.value.violations] == ["saga_id"]


async def test_a_start_too_large_for_a_session_is_refused_alone(client: Client) -> None:
    with pytest.raises(ResourceExhausted):
        await client.start(ECHO, "x" * (2 << 20))
    assert await (await client.start(ECHO, 1)).result() == {"echo": 1}


async def test_outcomes_wait_for_credits(client: Client, stream: Stream) -> None:
    digest = (await client.register(ECHO)).definition.digest
    assert (await read(stream)).start_credits == STARTS_MAX
    await stream.write(batch(*(start(f"s{i}", digest) for i in range(10))))
    for i in range(10):  # all are started and over, though nobody takes their outcomes
        while not await is_final(client, f"s{i}"):  # noqa: ASYNC110 – there is nothing here to wait with
            await asyncio.sleep(0.01)
    await stream.write(pb.OrchestratorServiceSessionRequest(result_credits=3))
    got = (await read(stream)).outcomes
    assert len(got) == 3
    await stream.write(pb.OrchestratorServiceSessionRequest(result_credits=17))
    found = [*got, *await outcomes(stream, 17)]
    assert sorted(each.saga.saga_id for each in found) == sorted([f"s{i}" for i in range(10)] * 2)
    assert {each.saga.status for each in found if each.saga.HasField("create_time")} == {saga_pb2.SAGA_STATUS_COMPLETED}


async def test_large_results_share_no_message_that_clients_would_not_take(client: Client, stream: Stream) -> None:
    """Those of gRPC take four mebibytes by default."""
    large = encode("x" * 950_000)
    for name, steps in (("one", 1), ("four", 4)):
        saga: Saga[Any, Any] = Saga(name)
        for number in range(steps):
            saga.step(echo, id=f"s{number}")
        request = start(name, (await client.register(saga)).definition.digest)
        request.input.CopyFrom(large)
        await stream.write(batch(request))
        async with asyncio.timeout(WAIT_S):
            while not await is_final(client, name):  # noqa: ASYNC110 – there is nothing here to wait with
                await asyncio.sleep(0.01)
    assert (await read(stream)).start_credits == STARTS_MAX
    await stream.write(pb.OrchestratorServiceSessionRequest(result_credits=4))
    ended = [outcome for outcome in await outcomes(stream, 4) if outcome.saga.HasField("output")]
    assert [len(outcome.saga.output.json) // 950_000 for outcome in ended] == [1, 4]


async def test_without_wait_only_the_start_is_told(client: Client, stream: Stream) -> None:
    digest = (await client.register(ECHO)).definition.digest
    quiet = start("quiet", digest)
    quiet.wait = False
    (acknowledged,) = await outcomes(stream, 1, quiet)
    assert (acknowledged.saga.saga_id, acknowledged.saga.HasField("create_time")) == ("quiet", False)
    found = await outcomes(stream, 2, start("loud", digest))
    assert [each.saga.saga_id for each in found] == ["loud", "loud"]


async def test_each_start_gives_its_credit_back_once_also_if_it_is_refused(client: Client, stream: Stream) -> None:
    digest = (await client.register(ECHO)).definition.digest
    assert (await read(stream)).start_credits == STARTS_MAX
    for saga_id, count in (("not an id", 1), ("fine", 2)):
        await stream.write(batch(start(saga_id, digest), result_credits=count))
        found: list[pb.OrchestratorServiceSessionResponse] = []
        while sum(len(each.outcomes) for each in found) < count:
            found.append(await read(stream))
        assert sum(each.start_credits for each in found) == 1


async def test_starts_that_were_refused_take_no_room_from_others(
    client: Client, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_session, "STARTS_BYTES_MAX", 1_000)
    digest = (await client.register(ECHO)).definition.digest
    for saga_id in ("not an id", "also none", "nor this"):
        refused = start(saga_id, digest)
        refused.input.json = f'"{"x" * 600}"'
        (outcome,) = await outcomes(stream, 1, refused)
        assert outcome.status_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert len(await outcomes(stream, 2, start("fine", digest))) == 2


async def test_the_end_of_a_saga_that_has_ended_before_it_is_started_again_is_told(
    client: Client, stream: Stream
) -> None:
    """Nobody will publish it any more, so that whoever waited for that would wait for ever."""
    digest = (await client.register(ECHO)).definition.digest
    for _ in range(2):
        acknowledged, ended = await outcomes(stream, 2, start("again", digest))
        assert (acknowledged.saga.saga_id, acknowledged.saga.HasField("create_time")) == ("again", False)
        assert (ended.saga.status, ended.saga.output.json) == (saga_pb2.SAGA_STATUS_COMPLETED, '{"echo":1}')


async def test_a_result_comes_with_its_steps_unless_its_output_tells_what_they_returned(
    client: Client, stream: Stream
) -> None:
    ends_wrong: Saga[Any, Any] = Saga("unfilled")
    ends_wrong.step(echo, kind=PIVOT)  # before the pivot the saga would turn back
    unfilled = ends_wrong.definition()
    unfilled.output_template = '"${steps.echo.output.nothing}"'
    ended: dict[str, saga_pb2.Saga] = {}
    for definition in (ECHO.definition(), saga_of("scanned", echo, scan).definition(), unfilled):
        digest = (await client.register(definition)).definition.digest
        _, outcome = await outcomes(stream, 2, start(definition.name, digest))
        ended[definition.name] = outcome.saga
    assert {saga.status for saga in ended.values()} == {saga_pb2.SAGA_STATUS_COMPLETED}
    assert (ended["echo"].output.json, list(ended["echo"].steps)) == ('{"echo":1}', [])
    assert [step.output.WhichOneof("kind") for step in ended["scanned"].steps] == ["json", "opaque"]
    assert not ended["unfilled"].HasField("output")
    assert ended["unfilled"].output_error.code == "OUTPUT_INVALID"
    assert [step.output.json for step in ended["unfilled"].steps] == ["1"]


async def test_a_stop_reports_what_is_known_and_a_restart_goes_on(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'restarted.db'}"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        address = (await first.enter_async_context(serving(load_settings(listen="127.0.0.1:0", store=store)))).address
        await stack.enter_async_context(serving_participant(kit, orchestrator=address))
        client = await stack.enter_async_context(Client(address))
        sagas = [await client.start(saga_of("two", held, echo), i, id=f"s{i}") for i in range(20)]
        waiting = [asyncio.create_task(saga.result()) for saga in sagas]
        while len(called) < len(sagas):  # noqa: ASYNC110 – handlers are counted where they run
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.2, gate.set)  # while it is being stopped
        await first.aclose()
        assert not any(task.done() for task in waiting), "nothing new is dispatched on the way out"
        await stack.enter_async_context(serving(load_settings(listen=address, store=store)))
        done = await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
    assert done == [{"held": i, "echo": i} for i in range(20)]
    assert sorted(called) == sorted(str(i) for i in range(20)), "what was answered on the way out is not asked again"


async def test_a_saga_that_settles_between_being_looked_up_and_waited_for_is_told_of(
    client: Client, server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is repeated reads the saga, which may be over before anybody waits for its end."""
    digest = (await client.register(LATER)).definition.digest
    await outcomes(stream, 1, start("twice", digest))
    await asyncio.wait_for(waiting.wait(), WAIT_S)
    read_saga, looked_up, proceed = server._parts.runner.read, asyncio.Event(), asyncio.Event()

    async def slowly(key: SagaKey) -> View:
        view = await read_saga(key)
        if not looked_up.is_set():
            looked_up.set()
            await proceed.wait()
        return view

    monkeypatch.setattr(server._parts.runner, "read", slowly)
    await stream.write(batch(start("twice", digest), result_credits=3))
    await asyncio.wait_for(looked_up.wait(), WAIT_S)
    await client.complete(completions.pop(), "done")
    assert (await client.saga(None, "twice").wait()).status is SagaStatus.COMPLETED
    proceed.set()
    found = await outcomes(stream, 3)  # the end of the first start, and both of the second one
    assert [each.saga.status for each in found if each.saga.HasField("create_time")] == [
        saga_pb2.SAGA_STATUS_COMPLETED,
        saga_pb2.SAGA_STATUS_COMPLETED,
    ]


async def test_starts_by_name_read_nothing_and_take_the_version_that_was_registered_last(
    client: Client, server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read_definition = server._store.get_definition

    async def counting(namespace: str, *, name: str = "", version: int = 0, digest: str = "") -> StoredDefinition:
        reads.append(name or digest)
        return await read_definition(namespace, name=name, version=version, digest=digest)

    monkeypatch.setattr(server._store, "get_definition", counting)
    await client.register(ECHO)
    for _ in range(3):
        assert await (await client.start("echo", 1)).result() == {"echo": 1}
    assert reads == ["echo"]
    await client.register(saga_of("echo", echo, held))
    gate.set()
    for _ in range(3):
        assert await (await client.start("echo", 1)).result() == {"echo": 1, "held": 1}
    assert reads == ["echo", "echo"]
    old = start("old", "")
    old.definition.name, old.definition.version = "echo", 1
    _, end = await outcomes(stream, 2, old)
    assert (end.saga.definition_version, end.saga.output.json) == (1, '{"echo":1}')
    assert reads == ["echo", "echo"]


async def is_final(client: Client, saga_id: str) -> bool:
    try:
        return (await client.get(saga_id)).status.is_final
    except NotFound:
        return False


def start(saga_id: str, digest: str) -> pb.StartSagaRequest:
    return pb.StartSagaRequest(saga_id=saga_id, definition=pb.DefinitionRef(digest=digest), input=encode(1), wait=True)


def batch(*requests: pb.StartSagaRequest, result_credits: int = 0) -> pb.OrchestratorServiceSessionRequest:
    starts = [pb.SessionStart(id=i, start=request) for i, request in enumerate(requests)]
    return pb.OrchestratorServiceSessionRequest(starts=starts, result_credits=result_credits)


async def read(stream: Stream) -> pb.OrchestratorServiceSessionResponse:
    response = await asyncio.wait_for(stream.read(), WAIT_S)
    assert isinstance(response, pb.OrchestratorServiceSessionResponse)
    return response


async def outcomes(stream: Stream, count: int, *requests: pb.StartSagaRequest) -> list[pb.SessionOutcome]:
    """Send starts, and return the next outcomes."""
    if requests:
        await stream.write(batch(*requests, result_credits=count))
    found: list[pb.SessionOutcome] = []
    while len(found) < count:
        found += (await read(stream)).outcomes
    assert len(found) == count
    return found


def details(serialized: bytes | str) -> tuple[Any, ...]:
    assert isinstance(serialized, bytes)
    status = status_pb2.Status.FromString(serialized)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return (
        status.code,
        status.message,
        info.reason,
        dict(info.metadata),
        [detail.type_url for detail in status.details],
    )
