"""Sessions of the client against an orchestrator that does what it should not: nobody is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from amends import AmendsError, Client, DeadlineExceeded, Internal, SagaStatus
from amends.client import _starts, connection
from amends.ids import partition_of
from amends.v1 import orchestrator_pb2, saga_pb2
from tests.sdk.scripted import Context, ScriptedOrchestrator, scripted

WAIT_S = 30.0
Response = orchestrator_pb2.OrchestratorServiceSessionResponse


@pytest.fixture
async def orchestrator() -> AsyncGenerator[ScriptedOrchestrator, None]:
    async with scripted() as one:
        one.returns("StartSaga", orchestrator_pb2.StartSagaResponse(created=True))
        one.returns(
            "GetSaga", orchestrator_pb2.GetSagaResponse(saga=saga_pb2.Saga(status=saga_pb2.SAGA_STATUS_COMPLETED))
        )
        yield one


async def opened(context: Context) -> None:
    await context.write(Response(start_credits=10))


async def starts(context: Context, count: int = 1) -> list[int]:
    """The numbers of the next starts, acknowledged."""
    found: list[int] = []
    while len(found) < count:
        request = await context.read()
        found += [each.id for each in request.starts]
    response = Response()
    for each in found:
        response.outcomes.add(id=each, saga=saga_pb2.Saga(saga_id="any"))
    await context.write(response)
    return found


def corrupt(start_id: int) -> Response:
    """A refusal whose details cannot be decoded."""
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\x0a\xff")
    status = status_pb2.Status(code=13, message="broken", details=[detail])
    response = Response()
    response.outcomes.add(id=start_id, status_code=13, status_details=status.SerializeToString())
    return response


def counted(*sessions: Callable[[Context], Awaitable[None]]) -> tuple[list[int], Callable[[Context], Awaitable[None]]]:
    """Serves the sessions by these in turn, the last one for ever; the list is as long as there were sessions."""
    seen: list[int] = []

    async def session(context: Context) -> None:
        seen.append(1)
        await sessions[min(len(seen), len(sessions)) - 1](context)

    return seen, session


async def serve_all(context: Context) -> None:
    await opened(context)
    while True:
        await starts(context)


def aborting(code: grpc.StatusCode) -> Callable[[Context], Awaitable[None]]:
    async def session(context: Context) -> None:
        await context.abort(code, "scripted")

    return session


async def test_details_that_cannot_be_read_leave_the_refusal_and_the_other_starts(
    orchestrator: ScriptedOrchestrator,
) -> None:
    async def session(context: Context) -> None:
        await opened(context)
        first, _ = await starts(context, 2)
        await context.write(corrupt(first))
        request = await context.read()
        while not request.starts:
            request = await context.read()
        await context.write(corrupt(request.starts[0].id))
        await asyncio.Event().wait()

    seen, served = counted(session)
    orchestrator.on_session(served)
    async with Client(orchestrator.address, retry_for=1) as client, asyncio.timeout(WAIT_S):
        one, _ = await asyncio.gather(client.start("x", 1), client.start("x", 2))
        assert (await one.wait()).status is SagaStatus.COMPLETED
        with pytest.raises(Internal, match="broken"):
            await client.start("x", 3)
    assert len(seen) == 1


@pytest.mark.parametrize("half", ["_take", "_batch"])
async def test_a_defect_in_either_half_of_a_session_leaves_nobody_waiting(
    orchestrator: ScriptedOrchestrator, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    acknowledged = asyncio.Event()

    async def session(context: Context) -> None:
        await opened(context)
        await starts(context)
        await acknowledged.wait()
        await context.write(Response(start_credits=1))
        await asyncio.Event().wait()

    def broken(*_: object) -> None:
        raise ValueError("a defect")

    orchestrator.on_session(session)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        saga = await client.start("x", 1)
        waiting = asyncio.create_task(saga.wait())
        await asyncio.sleep(0)
        monkeypatch.setattr(_starts._Session, half, broken)
        acknowledged.set()
        assert (await waiting).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE])
async def test_a_session_that_a_stopping_orchestrator_ends_is_opened_again(
    orchestrator: ScriptedOrchestrator, code: grpc.StatusCode
) -> None:
    seen, served = counted(aborting(code), serve_all)
    orchestrator.on_session(served)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        await client.start("x", 1)
        await client.start("x", 2)
    assert len(seen) == 2
    assert not orchestrator.of(orchestrator_pb2.StartSagaRequest)


async def test_nothing_is_written_before_the_orchestrator_has_spoken(orchestrator: ScriptedOrchestrator) -> None:
    """What it says of a session that it ends at once would be lost where it meets a write."""
    came: list[orchestrator_pb2.OrchestratorServiceSessionRequest] = []

    async def session(context: Context) -> None:
        await opened(context)
        came.append(await context.read())
        response = Response()
        response.outcomes.add(id=1, saga=saga_pb2.Saga(saga_id="any"))
        await context.write(response)
        await asyncio.Event().wait()

    orchestrator.on_session(session)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        await client.start("x", 1)
    assert (len(came[0].starts), came[0].result_credits) == (1, _starts.OUTCOMES_MAX)


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED])
async def test_a_session_that_does_not_come_about_is_tried_again_later(
    orchestrator: ScriptedOrchestrator, code: grpc.StatusCode
) -> None:
    """That there is none may be the word of a proxy, or of an orchestrator that is upgraded just now."""
    seen, served = counted(aborting(code), serve_all)
    orchestrator.on_session(served)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        await client.start("x", 1)
        await client.start("x", 2)
        assert (len(seen), len(orchestrator.of(orchestrator_pb2.StartSagaRequest))) == (1, 2)
        (await client._connection.replicas.chosen()).starts._probe_at -= _starts.PROBE_AGAIN_S  # that time is over
        await client.start("x", 3)
    assert (len(seen), len(orchestrator.of(orchestrator_pb2.StartSagaRequest))) == (2, 2)


async def acknowledge_next(context: Context, *owned: int, partitions: int = 3) -> str:
    """Acknowledge one start, and say with it which partitions are the orchestrator's. Returns the id of the saga."""
    request = await context.read()
    while not request.starts:
        request = await context.read()
    [start] = request.starts
    response = Response(start_credits=1, share=orchestrator_pb2.Share(partitions=partitions, owned=owned))
    response.outcomes.add(id=start.id, saga=saga_pb2.Saga(saga_id=start.start.saga_id))
    await context.write(response)
    return str(start.start.saga_id)


async def test_ids_that_are_made_up_belong_to_the_share_of_who_is_asked(orchestrator: ScriptedOrchestrator) -> None:
    places: list[int] = []

    async def session(context: Context) -> None:
        await opened(context)
        for owned in (1,) * 9 + (2,) * 9:
            places.append(partition_of("shop", await acknowledge_next(context, owned), 3))
        await acknowledge_next(context)  # nothing is its own any more
        await acknowledge_next(context, 1, partitions=0)  # nonsense, which keeps nobody from starts
        await acknowledge_next(context, 0)
        await asyncio.Event().wait()

    seen, served = counted(session)
    orchestrator.on_session(served)
    async with Client(orchestrator.address, namespace="shop") as client, asyncio.timeout(WAIT_S):
        made = [(await client.start("x", number)).id for number in range(20)]
        assert (await client.start("x", "chosen", id="order-1")).id == "order-1"
    assert places[1:] == [1] * 9 + [2] * 8
    assert len({*made}) == 20
    assert len(seen) == 1


async def test_i19_a_start_that_is_repeated_keeps_the_id_that_was_made_for_another_share(
    orchestrator: ScriptedOrchestrator,
) -> None:
    asked, noted = list[str](), asyncio.Event()

    async def breaking(context: Context) -> None:
        await opened(context)
        await acknowledge_next(context, 1)
        request = await context.read()
        asked.extend(each.start.saga_id for each in request.starts)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    async def next_one(context: Context) -> None:
        await context.write(Response(start_credits=10, share=orchestrator_pb2.Share(partitions=3, owned=[2])))
        asked.append(await acknowledge_next(context, 2))
        noted.set()  # the client may know of it before
        await asyncio.Event().wait()

    _, served = counted(breaking, next_one)
    orchestrator.on_session(served)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        await client.start("x", 1)
        saga = await client.start("x", 2)
        await noted.wait()
    assert asked == [saga.id, saga.id]
    assert partition_of("default", saga.id, 3) == 1


async def test_a_start_that_is_not_acknowledged_in_time_says_so_and_leaves_the_others(
    orchestrator: ScriptedOrchestrator,
) -> None:
    async def session(context: Context) -> None:
        await opened(context)
        while True:
            for each in (await context.read()).starts:
                if each.start.input.json != '"forgotten"':
                    response = Response()
                    response.outcomes.add(id=each.id, saga=saga_pb2.Saga(saga_id="any"))
                    await context.write(response)

    seen, served = counted(session)
    orchestrator.on_session(served)
    async with Client(orchestrator.address, timeout=WAIT_S) as client, asyncio.timeout(WAIT_S):
        await client.start("x", 1)
        own = (await client._connection.replicas.chosen()).starts._session
        assert own is not None
        own._timeout_s = 0.01
        with pytest.raises(DeadlineExceeded, match="not acknowledged in time"):
            await client.start("x", "forgotten")
        own._timeout_s = WAIT_S
        await client.start("x", 2)
        assert own._deadlines._open == set()
    assert len(seen) == 1


async def test_a_client_that_is_closed_while_a_start_is_to_be_repeated_tells_it(
    orchestrator: ScriptedOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    def wait(_: object) -> float:
        waits.set()
        return 0.1

    monkeypatch.setattr(connection, "_WAIT", wait)
    orchestrator.on_session(aborting(grpc.StatusCode.UNAVAILABLE))
    async with asyncio.timeout(WAIT_S):
        async with Client(orchestrator.address) as client:
            starting = asyncio.create_task(client.start("x", 1, id="order-1"))
            await waits.wait()
        with pytest.raises(AmendsError, match="closed") as caught:
            await starting
    assert caught.value.saga_id == "order-1"


async def test_a_client_that_is_closed_with_its_first_start_ends_it(orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.on_session(serve_all)
    async with Client(orchestrator.address) as client:
        starting = asyncio.create_task(client.start("x", 1))
        await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(AmendsError, match="closed"):
            await starting


async def test_a_saga_that_goes_on_costs_the_client_neither_its_input_nor_those_who_gave_up(
    orchestrator: ScriptedOrchestrator,
) -> None:
    orchestrator.on_session(serve_all)
    async with Client(orchestrator.address) as client, asyncio.timeout(WAIT_S):
        saga = await client.start("x", "much data")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(saga.result(), 0.01)
        session = (await client._connection.replicas.chosen()).starts._session
        assert session is not None
        [start] = session._open.values()
        assert start.request is None
        assert start.ending._waiters == []


async def test_errors_name_the_saga_of_their_own_start_and_no_other_when_a_session_ends(
    orchestrator: ScriptedOrchestrator,
) -> None:
    """Who is told of many at a time looks for each of them, or starts it again, by the id in its error."""
    names = [f"saga-{number}" for number in range(5)]
    came = asyncio.Event()

    async def breaks(context: Context) -> None:
        await opened(context)
        count = 0
        while count < len(names):
            count += len((await context.read()).starts)
        came.set()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    async def refuses(context: Context) -> None:
        await opened(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            response = Response()
            for each in request.starts:
                status = status_pb2.Status(code=14, message="it is about to end")
                status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SHUTTING_DOWN"))
                response.start_credits += 1
                response.outcomes.add(id=each.id, status_code=14, status_details=status.SerializeToString())
            await context.write(response)

    orchestrator.on_session(counted(breaks, refuses)[1])
    async with Client(orchestrator.address, retry_for=0.2) as client, asyncio.timeout(WAIT_S):
        found = await asyncio.gather(*(client.start("x", None, id=name) for name in names), return_exceptions=True)
    assert came.is_set()
    assert [getattr(error, "saga_id", None) for error in found] == names
    assert [str(error).count("saga-") for error in found] == [1] * len(names)


async def test_errors_name_the_saga_of_their_own_start_and_no_other_when_the_client_is_closed(
    orchestrator: ScriptedOrchestrator,
) -> None:
    names = [f"saga-{number}" for number in range(5)]
    came = asyncio.Event()

    async def silent(context: Context) -> None:
        await opened(context)
        count = 0
        while count < len(names):
            count += len((await context.read()).starts)
        came.set()
        await asyncio.Event().wait()

    orchestrator.on_session(silent)
    async with asyncio.timeout(WAIT_S):
        async with Client(orchestrator.address) as client:
            starting = asyncio.gather(*(client.start("x", None, id=name) for name in names), return_exceptions=True)
            await came.wait()
        found = await starting
    assert [getattr(error, "saga_id", None) for error in found] == names
    assert [str(error).count("saga-") for error in found] == [1] * len(names)
