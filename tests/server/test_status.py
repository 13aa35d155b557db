"""Refusals as gRPC statuses, seen by a real client."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc
from amends_server import errors, status
from amends_server.engine.checks.problem import InvalidDefinition, error
from amends_server.engine.commands import Rejected
from amends_server.status import refusals
from amends_server.store import protocol as store
from tests.advice import says_what_to_do

if TYPE_CHECKING:
    from amends_server.status import Context

ANSWER_S = 30
PRIVATE = "4929-1234-5678"
C = grpc.StatusCode


class Service(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Does what `act` does."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None
        self.closed = asyncio.Event()
        self.waiting = asyncio.Event()

    @refusals
    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        result = self.act()
        if asyncio.isfuture(result):
            await result
        if request.wait:
            await abort_by_hand(context)
        return pb.GetSagaResponse()

    @refusals
    async def WatchSaga(
        self, request: pb.WatchSagaRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSagaResponse, None]:
        try:
            yield pb.WatchSagaResponse()
            result = self.act()
            self.waiting.set()
            if asyncio.isfuture(result):
                await result
        finally:
            self.closed.set()


async def abort_by_hand(context: Context) -> None:
    await context.abort(C.OUT_OF_RANGE, "by hand")


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def stub(service: Service) -> AsyncIterator[orchestrator_pb2_grpc.OrchestratorServiceAsyncStub]:
    server = grpc.aio.server()
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
    await server.stop(None)


def raising(problem: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise problem

    return act


def cancelled_future() -> object:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, ANSWER_S)  # type: ignore[arg-type]
    return caught.value


def detail(caught: grpc.aio.AioRpcError, kind: type) -> object:
    rich = rpc_status.from_call(caught)  # type: ignore[arg-type]
    assert rich is not None
    assert code_pb2.Code.Name(rich.code) == caught.code().name
    for packed in rich.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


CASES: list[tuple[BaseException, grpc.StatusCode, str]] = [
    (
        InvalidDefinition([error("steps", "STEPS_MISSING", "A saga needs steps.")]),
        C.INVALID_ARGUMENT,
        "DEFINITION_INVALID",
    ),
    (Rejected("SAGA_FINAL", "It is over."), C.FAILED_PRECONDITION, "SAGA_FINAL"),
    (Rejected("STEP_UNKNOWN", "No such step."), C.NOT_FOUND, "STEP_UNKNOWN"),
    (Rejected("OUTPUT_REFUSED", "No id.", "output.id"), C.INVALID_ARGUMENT, "OUTPUT_REFUSED"),
    (errors.BadField("saga_id", "Too long."), C.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    (errors.RequestUnreadable(), C.INVALID_ARGUMENT, "REQUEST_UNREADABLE"),
    (errors.PayloadTooLarge("input", 9, 8), C.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE"),
    (errors.SagaNotFound("default", "s-1"), C.NOT_FOUND, "SAGA_NOT_FOUND"),
    (errors.SagaAlreadyExists("default", "s-1"), C.ALREADY_EXISTS, "SAGA_ALREADY_EXISTS"),
    (errors.DefinitionNotFound("default", name="order"), C.NOT_FOUND, "DEFINITION_NOT_FOUND"),
    (errors.DefinitionInUse("default", "order", 2), C.FAILED_PRECONDITION, "DEFINITION_IN_USE"),
    (errors.ParticipantNotFound("shop"), C.NOT_FOUND, "PARTICIPANT_NOT_FOUND"),
    (errors.ParticipantInUse("shop", "s-1"), C.FAILED_PRECONDITION, "PARTICIPANT_IN_USE"),
    (errors.ParticipantFixed("shop"), C.FAILED_PRECONDITION, "PARTICIPANT_FIXED"),
    (errors.AddressNotAllowed("evil:1"), C.PERMISSION_DENIED, "ADDRESS_NOT_ALLOWED"),
    (errors.TokenInvalid("s-1", "a"), C.PERMISSION_DENIED, "TOKEN_INVALID"),
    (errors.Overloaded("sagas", 5), C.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.ParticipantCrowded("shop", 5), C.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.NotOwned("default", "s-1"), C.UNAVAILABLE, "NOT_OWNED"),
    (errors.OwnerLost("default", "s-1"), C.UNAVAILABLE, "OWNER_LOST"),
    (errors.ShuttingDown(), C.UNAVAILABLE, "SHUTTING_DOWN"),
    (errors.NotWaitedFor("default", "s-1"), C.ABORTED, "NOT_WAITED_FOR"),
    (errors.EventsNotKept("s-1", 9, 4), C.OUT_OF_RANGE, "EVENTS_NOT_KEPT"),
    (errors.SagaHalted("default", "s-1", f"assertion about {PRIVATE}"), C.INTERNAL, "SAGA_HALTED"),
    (errors.CorruptRecord("default", "s-1", 3, "its bytes are no event"), C.DATA_LOSS, "RECORD_CORRUPT"),
    (store.NotFound(), C.NOT_FOUND, "NOT_FOUND"),
    (store.AlreadyExists(), C.ALREADY_EXISTS, "ALREADY_EXISTS"),
    (store.Conflict(), C.ABORTED, "CONCURRENT_CHANGE"),
    (store.InUse(), C.FAILED_PRECONDITION, "IN_USE"),
    (store.Unavailable(f"cannot write {PRIVATE}"), C.UNAVAILABLE, "STORE_UNAVAILABLE"),
]


@pytest.mark.parametrize(("problem", "code", "reason"), CASES, ids=[case[2] for case in CASES])
async def test_each_refusal_has_its_status_and_reason(
    service: Service,
    stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub,
    problem: BaseException,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    service.act = raising(problem)
    caught = await refused(stub.GetSaga(pb.GetSagaRequest(namespace="default", saga_id="s-1")))
    assert caught.code() is code
    assert caught.details()
    info = detail(caught, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, info.metadata["saga_id"]) == (reason, "amends", "s-1")
    assert PRIVATE not in str(caught)


def test_every_refusal_of_the_services_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ServiceError)}
    kinds -= {errors.ServiceError, errors.BadField}
    assert kinds - status.REFUSALS.keys() == set()
    assert {type(case[0]) for case in CASES} >= kinds - {errors.InvalidArgument}  # BadField is one


async def test_a_bad_request_names_the_fields(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = raising(InvalidDefinition([error("definition.steps[0].id", "STEP_ID_INVALID", "Rename it.")]))
    caught = await refused(stub.GetSaga(pb.GetSagaRequest()))
    bad = detail(caught, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("definition.steps[0].id", "STEP_ID_INVALID: Rename it.")
    ]


@pytest.mark.parametrize("text", ["Rename it.", "名を変えよ" * 300])
async def test_a_thousand_violations_still_reach_the_client(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub, text: str
) -> None:
    service.act = raising(InvalidDefinition([error(f"steps[{i}].id", "STEP_ID_INVALID", text) for i in range(1_000)]))
    caught = await refused(stub.GetSaga(pb.GetSagaRequest(saga_id="ü" * 4_000)))
    assert caught.code() is C.INVALID_ARGUMENT
    bad = detail(caught, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    shown = len(bad.field_violations) - 1
    assert shown > 0
    assert bad.field_violations[-1].description == f"There are {1_000 - shown} more; mend these first."


async def test_what_passes_by_itself_says_when_to_try_again(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = raising(store.Unavailable("disk"))
    with capture_logs() as logs:
        caught = await refused(stub.GetSaga(pb.GetSagaRequest()))
    retry = detail(caught, error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.seconds == 1
    assert [(entry["event"], entry["message"]) for entry in logs] == [("store_refused", "disk")]


async def test_i46_what_nobody_expected_is_logged_and_its_text_told_to_nobody(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = raising(KeyError(PRIVATE))
    with capture_logs() as logs:
        caught = await refused(stub.GetSaga(pb.GetSagaRequest(saga_id="s-1")))
    assert caught.code() is C.INTERNAL
    assert PRIVATE not in str(caught) + repr(caught.trailing_metadata())
    assert [(entry["event"], entry["method"], entry["error"], entry["saga_id"]) for entry in logs] == [
        ("request_broke", "GetSaga", "KeyError", "s-1")
    ]
    assert "in act" in logs[0]["stack"]
    assert PRIVATE not in str(logs)


async def test_a_call_that_was_aborted_by_hand_stays_so(
    stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub,
) -> None:
    caught = await refused(stub.GetSaga(pb.GetSagaRequest(wait=True)))
    assert (caught.code(), caught.details()) == (C.OUT_OF_RANGE, "by hand")


async def test_something_cancelled_inside_does_not_leave_the_caller_waiting(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = cancelled_future
    caught = await refused(stub.GetSaga(pb.GetSagaRequest()))
    assert caught.code() is C.UNAVAILABLE


async def test_streams_are_guarded_too(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = raising(Rejected("SAGA_FINAL", "It is over."))
    call = stub.WatchSaga(pb.WatchSagaRequest())
    assert isinstance(await call.read(), pb.WatchSagaResponse)
    caught = await refused(call.read())
    assert (caught.code(), caught.details()) == (C.FAILED_PRECONDITION, "It is over.")
    await asyncio.wait_for(service.closed.wait(), ANSWER_S)


async def test_a_stream_ends_when_its_reader_leaves(
    service: Service, stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub
) -> None:
    service.act = asyncio.get_running_loop().create_future
    call = stub.WatchSaga(pb.WatchSagaRequest())
    await call.read()
    await asyncio.wait_for(service.waiting.wait(), ANSWER_S)
    with capture_logs() as logs:
        call.cancel()
        await asyncio.wait_for(service.closed.wait(), ANSWER_S)
    assert logs == []


def each_kind() -> Iterator[Exception]:
    """One of each kind of refusal of the services; what is wrong with fields is said by whoever checks them."""
    kinds = [kind for kind in status.REFUSALS if issubclass(kind, errors.ServiceError)]
    for kind in kinds:
        if not issubclass(kind, errors.InvalidArgument):
            wants = inspect.signature(kind).parameters.values()
            yield kind(*(1 if each.annotation == "int" else "x" for each in wants if each.default is each.empty))
    yield errors.DefinitionNotFound("default", name="x", version=1)
    yield from (kind() for kind, refusal in status.REFUSALS.items() if refusal.message and kind not in kinds)
    yield RuntimeError()


def test_each_refusal_says_what_to_do() -> None:
    texts = [status.to_status(each).message for each in each_kind()]
    assert len(texts) > 20
    assert [text for text in texts if not says_what_to_do(text)] == []
