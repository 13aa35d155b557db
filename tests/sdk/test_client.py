"""The client against a scripted orchestrator: what it sends, what it makes of the answers, and what it repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from amends import (
    PIVOT,
    AlreadyExists,
    AmendsError,
    CauseKind,
    Client,
    Compensated,
    DeadlineExceeded,
    Failed,
    InvalidArgument,
    NotFound,
    PayloadError,
    Resolution,
    Saga,
    SagaStatus,
    StepStatus,
    Stuck,
    Unavailable,
    Unimplemented,
    Unknown,
    Violation,
    errors,
)
from amends.statuses import EXCEPTIONS
from amends.v1 import definition_pb2, operator_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from amends.views import Data
from tests.sdk.scripted import Context, ScriptedOrchestrator, refuse, scripted

UNDECODABLE = b"\xff"
WAIT_S = 30.0


@dataclass
class Order:
    sku: str


@dataclass
class Receipt:
    payment_id: str


def saga_of(status: int, **fields: Any) -> saga_pb2.Saga:
    return saga_pb2.Saga(
        namespace="default", saga_id="order-1", definition="order", status=cast("Any", status), **fields
    )


def answer_of(status: int, **fields: Any) -> orchestrator_pb2.GetSagaResponse:
    return orchestrator_pb2.GetSagaResponse(saga=saga_of(status, **fields))


def order_saga() -> Saga[Order, Receipt]:
    order = Saga("order", input=Order, output=Receipt)
    paid = order.step("payment/charge", {"sku": order.input.sku}, kind=PIVOT)
    order.returns(Receipt(paid.output["id"]))
    return order


@pytest.fixture
async def orchestrator() -> AsyncGenerator[ScriptedOrchestrator, None]:
    async with scripted() as one:
        one.returns("StartSaga", orchestrator_pb2.StartSagaResponse(created=True))
        one.returns(
            "RegisterDefinition",
            orchestrator_pb2.RegisterDefinitionResponse(definition=definition_pb2.Definition(digest="sha256:1")),
        )
        yield one


@pytest.fixture
async def client(orchestrator: ScriptedOrchestrator) -> AsyncGenerator[Client, None]:
    async with Client(orchestrator.address, retry_for=5) as one:
        yield one


async def test_start_registers_the_definition_once_and_starts_by_digest(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    order = order_saga()
    saga = await client.start(order, Order("a"), id="order-1", labels={"k": "v"}, deadline=timedelta(seconds=9))
    await client.start(order_saga(), Order("b"))
    assert saga.id == "order-1"
    assert [type(each).__name__ for each in orchestrator.requests] == [
        "RegisterDefinitionRequest",
        "StartSagaRequest",
        "StartSagaRequest",
    ]
    first, second = orchestrator.of(orchestrator_pb2.StartSagaRequest)
    assert orchestrator.of(orchestrator_pb2.RegisterDefinitionRequest)[0].definition == order.definition()
    assert first == orchestrator_pb2.StartSagaRequest(
        namespace="default",
        saga_id="order-1",
        definition=orchestrator_pb2.DefinitionRef(digest="sha256:1"),
        input=payload_pb2.Payload(json='{"sku":"a"}'),
        labels={"k": "v"},
        deadline=duration_pb2.Duration(seconds=9),
    )
    assert len(second.saga_id) == 32


async def test_start_registers_again_when_the_orchestrator_has_forgotten(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    await client.start(order_saga(), Order("a"))
    orchestrator.returns(
        "RegisterDefinition",
        orchestrator_pb2.RegisterDefinitionResponse(definition=definition_pb2.Definition(digest="sha256:2")),
    )

    async def knows_the_second(request: orchestrator_pb2.StartSagaRequest, context: Context) -> object:
        if request.definition.digest != "sha256:2":
            await refuse(context, grpc.StatusCode.NOT_FOUND, "what?", reason="DEFINITION_NOT_FOUND")
        return orchestrator_pb2.StartSagaResponse(created=True)

    orchestrator.on("StartSaga", knows_the_second)
    await client.start(order_saga(), Order("a"), id="again")
    await client.start(order_saga(), Order("a"), id="more")
    starts = orchestrator.of(orchestrator_pb2.StartSagaRequest)
    assert [each.definition.digest[-1] for each in starts] == ["1", "1", "2", "2"]
    assert [each.saga_id for each in starts[1:]] == ["again", "again", "more"]


async def test_start_gives_up_when_registering_again_does_not_help(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    async def forgets(_: object, context: Context) -> object:
        await refuse(context, grpc.StatusCode.NOT_FOUND, "what?", reason="DEFINITION_NOT_FOUND")

    orchestrator.on("StartSaga", forgets)
    with pytest.raises(NotFound, match=r"what\?"):
        await client.start(order_saga(), Order("a"))
    assert len(orchestrator.of(orchestrator_pb2.StartSagaRequest)) == 2


async def test_start_by_name_needs_no_definition(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    saga = await client.start("order", {"sku": "a"}, id="x")
    (request,) = orchestrator.requests
    assert isinstance(request, orchestrator_pb2.StartSagaRequest)
    assert request.definition == orchestrator_pb2.DefinitionRef(name="order")
    orchestrator.returns(
        "GetSaga", answer_of(saga_pb2.SAGA_STATUS_COMPLETED, output=payload_pb2.Payload(json='{"a":[1]}'))
    )
    assert await saga.result() == {"a": [1]}


async def test_an_unavailable_orchestrator_is_asked_again_with_the_same_id(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns(
        "StartSaga",
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAVAILABLE,
        orchestrator_pb2.StartSagaResponse(created=True),
    )
    saga = await client.start("order", None)
    requests = orchestrator.of(orchestrator_pb2.StartSagaRequest)
    assert len(requests) == 3
    assert {each.saga_id for each in requests} == {saga.id}


async def test_an_orchestrator_that_comes_back_is_found(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    await client.start("order", None, id="1")
    await orchestrator.stop()
    start = asyncio.create_task(client.start("order", None, id="2"))
    await orchestrator.start()
    assert (await start).id == "2"


async def test_retries_are_bounded(orchestrator: ScriptedOrchestrator) -> None:
    orchestrator.returns("GetSaga", grpc.StatusCode.UNAVAILABLE)
    async with Client(orchestrator.address, retry_for=0.2) as client:
        with pytest.raises(Unavailable, match="scripted UNAVAILABLE"):
            await client.get("order-1")
    assert 2 <= len(orchestrator.requests) < 50


async def test_what_must_not_be_repeated_is_not(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    for method in ("RetrySaga", "ResolveStep", "FailSaga", "DeleteParticipant"):
        orchestrator.returns(method, grpc.StatusCode.UNAVAILABLE)
    for call in (
        client.retry("a", reason="b"),
        client.resolve("a", "b", Resolution.SKIPPED, reason="c"),
        client.fail("a", reason="b"),
        client.delete_participant("a"),
    ):
        with pytest.raises(Unavailable):
            await call
    assert len(orchestrator.requests) == 4


async def test_a_call_that_a_stopping_orchestrator_cancelled_is_made_again(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("StartSaga", grpc.StatusCode.CANCELLED, orchestrator_pb2.StartSagaResponse(created=True))
    await client.start("order", None, id="order-1")
    assert len(orchestrator.requests) == 2


async def test_nothing_else_is_retried(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    passing = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    for number, code in enumerate(set(EXCEPTIONS) - passing, start=1):
        orchestrator.returns("GetSaga", code)
        with pytest.raises(EXCEPTIONS[code]) as raised:
            await client.get("order-1")
        assert type(raised.value) is EXCEPTIONS[code]
        assert raised.value.code is code
        assert len(orchestrator.requests) == number


def test_every_status_has_an_exception_of_its_own() -> None:
    assert set(EXCEPTIONS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert len(set(EXCEPTIONS.values())) == len(EXCEPTIONS)
    assert set(EXCEPTIONS.values()) == set(errors.RpcError.__subclasses__())


async def test_exceptions_carry_the_details(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    async def refuses(_: object, context: Context) -> object:
        await refuse(
            context,
            grpc.StatusCode.INVALID_ARGUMENT,
            "The definition is wrong.",
            reason="INVALID_DEFINITION",
            metadata={"name": "order"},
            violations={"definition.steps[0].after[0]": "There is no step `x`."},
        )

    orchestrator.on("RegisterDefinition", refuses)
    with pytest.raises(InvalidArgument) as raised:
        await client.start(order_saga(), Order("a"))
    assert str(raised.value) == "The definition is wrong.; definition.steps[0].after[0]: There is no step `x`."
    assert raised.value.reason == "INVALID_DEFINITION"
    assert raised.value.metadata == {"name": "order"}
    assert raised.value.violations == (Violation("definition.steps[0].after[0]", "There is no step `x`."),)


async def test_details_that_cannot_be_read_leave_the_status(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    async def refuses(_: object, context: Context) -> object:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "taken", (("grpc-status-details-bin", b"\xff"),))

    orchestrator.on("StartSaga", refuses)
    with pytest.raises(AlreadyExists, match="taken") as raised:
        await client.start("order", None)
    assert raised.value.reason == ""


async def test_an_answer_that_cannot_be_decoded_is_never_a_success(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("StartSaga", UNDECODABLE)
    with pytest.raises(Unknown, match="cannot be decoded"):
        await client.start("order", None)


async def test_calls_end_at_their_deadline(orchestrator: ScriptedOrchestrator) -> None:
    released = asyncio.Event()

    async def hangs(_: object, __: Context) -> object:
        await released.wait()
        return orchestrator_pb2.StartSagaResponse()

    orchestrator.on("StartSaga", hangs)
    async with Client(orchestrator.address, timeout=timedelta(milliseconds=100)) as client:
        with pytest.raises(DeadlineExceeded):
            await client.start("order", None)
    released.set()


async def test_a_client_is_open_inside_its_block_only(orchestrator: ScriptedOrchestrator) -> None:
    client = Client(orchestrator.address)
    with pytest.raises(AmendsError, match="async with"):
        await client.get("a")
    async with client:
        saga = client.saga(None, "a")
    with pytest.raises(AmendsError, match="closed"):
        await saga.status()
    with pytest.raises(AmendsError, match="async with"):
        await client.get("a")


async def test_a_client_that_is_open_is_not_opened_a_second_time(orchestrator: ScriptedOrchestrator) -> None:
    """The end of the inner block would close it for whoever has opened it."""
    orchestrator.returns("GetSaga", orchestrator_pb2.GetSagaResponse(saga=saga_of(saga_pb2.SAGA_STATUS_RUNNING)))
    client = Client(orchestrator.address)
    for _ in range(2):  # one after the other is well
        async with client:
            with pytest.raises(AmendsError, match="open already"):
                async with client:
                    raise AssertionError
            assert (await client.get("order-1")).status is SagaStatus.RUNNING


async def test_a_client_whose_end_is_broken_off_lets_go_of_its_connection(
    orchestrator: ScriptedOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken_off() -> None:
        raise asyncio.CancelledError

    orchestrator.returns("GetSaga", orchestrator_pb2.GetSagaResponse(saga=saga_of(saga_pb2.SAGA_STATUS_RUNNING)))
    client = Client(orchestrator.address)
    monkeypatch.setattr(client._registrations, "close", broken_off)
    with pytest.raises(asyncio.CancelledError):
        async with client:
            saga = client.saga(None, "order-1")
    with pytest.raises(AmendsError, match="closed"):
        await saga.status()


async def test_result_is_of_the_declared_type(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    orchestrator.returns(
        "GetSaga",
        answer_of(saga_pb2.SAGA_STATUS_RUNNING),
        answer_of(saga_pb2.SAGA_STATUS_COMPLETED, output=payload_pb2.Payload(json='{"payment_id":"p"}')),
    )
    saga = await client.start(order_saga(), Order("a"), wait=True)
    assert len(orchestrator.of(orchestrator_pb2.GetSagaRequest)) == 2
    assert all(each.wait for each in orchestrator.of(orchestrator_pb2.GetSagaRequest))
    assert await saga.result() == Receipt("p")


async def test_a_result_of_another_type_is_an_error(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    orchestrator.returns(
        "GetSaga", answer_of(saga_pb2.SAGA_STATUS_COMPLETED, output=payload_pb2.Payload(json='{"payment":1}'))
    )
    with pytest.raises(PayloadError, match="payment_id"):
        await client.saga(order_saga(), "order-1").result()


async def test_without_a_declared_output_the_result_is_the_outputs_of_the_steps(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    order = Saga("order", input=Order)
    order.step("a/a")
    steps = [saga_pb2.Step(id="a", output=payload_pb2.Payload(json='{"n":1}')), saga_pb2.Step(id="b")]
    orchestrator.returns("GetSaga", answer_of(saga_pb2.SAGA_STATUS_COMPLETED, steps=steps))
    assert await client.saga(order, "order-1").result() == {"a": {"n": 1}, "b": None}


async def test_result_waits_on_when_a_call_of_the_wait_ends(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    running = answer_of(saga_pb2.SAGA_STATUS_RUNNING)
    done = answer_of(saga_pb2.SAGA_STATUS_COMPLETED, output=payload_pb2.Payload(json="1"))
    orchestrator.returns("GetSaga", grpc.StatusCode.DEADLINE_EXCEEDED, running, grpc.StatusCode.UNAVAILABLE, done)
    assert await client.saga(None, "order-1").result() == 1
    assert [each.wait for each in orchestrator.of(orchestrator_pb2.GetSagaRequest)] == [True, False, True, True]


async def test_a_saga_that_turned_back_raises_compensated_with_cause_and_steps(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    error = payload_pb2.Error(
        code="NO_STOCK", message="None left.", participant="inventory", data=payload_pb2.Payload(json='{"left":0}')
    )
    orchestrator.returns(
        "GetSaga",
        answer_of(
            saga_pb2.SAGA_STATUS_COMPENSATED,
            cause=saga_pb2.Cause(step=saga_pb2.StepCause(step="b", error=error)),
            steps=[
                saga_pb2.Step(id="a", status=saga_pb2.STEP_STATUS_COMPENSATED, attempts=2),
                saga_pb2.Step(id="b", status=saga_pb2.STEP_STATUS_FAILED, error=error),
            ],
        ),
    )
    with pytest.raises(Compensated, match=r"The saga order-1 was compensated: step b: NO_STOCK: None left\.") as raised:
        await client.saga(order_saga(), "order-1").result()
    assert raised.value.cause is not None
    assert (raised.value.cause.kind, raised.value.cause.step) == (CauseKind.STEP, "b")
    first, second = raised.value.steps
    assert (first.status, first.attempts, first.error) == (StepStatus.COMPENSATED, 2, None)
    assert second.error is not None
    assert (second.error.code, second.error.participant) == ("NO_STOCK", "inventory")
    assert second.error.data.read(dict[str, int]) == {"left": 0}
    assert raised.value.saga.step("b") == second


async def test_stuck_and_failed_sagas_have_no_result(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    stuck = saga_pb2.Stuck(
        steps=["a", "b"],
        error=payload_pb2.Error(code="TIMEOUT"),
        start_time=timestamp_pb2.Timestamp(seconds=5),
        count=2,
    )
    orchestrator.returns("GetSaga", answer_of(saga_pb2.SAGA_STATUS_STUCK, stuck=stuck))
    with pytest.raises(Stuck, match="The saga order-1 needs an operator: a, b: TIMEOUT") as raised:
        await client.saga(None, "order-1").result()
    assert raised.value.cause is None
    assert raised.value.saga.stuck is not None
    assert raised.value.saga.stuck.start_time == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)
    cancel = saga_pb2.Cause(cancel=saga_pb2.RequestCause(reason="no more", principal="eve"))
    orchestrator.returns("GetSaga", answer_of(saga_pb2.SAGA_STATUS_FAILED, cause=cancel))
    with pytest.raises(Failed, match="given up by an operator, after: cancelled by eve: no more"):
        await client.saga(None, "order-1").result()


async def test_a_status_that_is_not_known_is_no_end(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    orchestrator.returns("GetSaga", answer_of(99))
    assert (await client.get("order-1")).status is SagaStatus.UNRECOGNISED
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.saga(None, "order-1").result()


async def test_status_is_a_view_of_all_that_is_known(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    message = saga_of(
        saga_pb2.SAGA_STATUS_RUNNING,
        labels={"a": "b"},
        input=payload_pb2.Payload(json='{"sku":"x"}'),
        sequence=7,
        paused=True,
        create_time=timestamp_pb2.Timestamp(seconds=60),
        deadline_time=timestamp_pb2.Timestamp(seconds=180),
        due_time=timestamp_pb2.Timestamp(seconds=120),
        steps=[
            saga_pb2.Step(id="waits", due_time=timestamp_pb2.Timestamp(seconds=120)),
            saga_pb2.Step(id="follows"),
        ],
    )
    orchestrator.returns("GetSaga", orchestrator_pb2.GetSagaResponse(saga=message))
    view = await client.get("order-1")
    assert (view.id, view.namespace, view.definition) == ("order-1", "default", "order")
    assert (view.status, view.paused, view.labels, view.sequence) == (SagaStatus.RUNNING, True, {"a": "b"}, 7)
    assert view.input.read(Order) == Order("x")
    assert not view.output
    assert view.output == Data(payload_pb2.Payload())
    assert view.create_time == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    assert view.end_time is None
    assert view.due_time == view.step("waits").due_time == datetime(1970, 1, 1, 0, 2, tzinfo=UTC)
    assert view.deadline_time == datetime(1970, 1, 1, 0, 3, tzinfo=UTC)
    assert view.step("follows").due_time is None
    assert view.message == message
    with pytest.raises(KeyError):
        view.step("none")


async def test_cancel_says_why(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    cause = saga_pb2.Cause(deadline=saga_pb2.DeadlineCause(deadline_time=timestamp_pb2.Timestamp(seconds=1)))
    orchestrator.returns(
        "CancelSaga",
        orchestrator_pb2.CancelSagaResponse(saga=saga_of(saga_pb2.SAGA_STATUS_COMPENSATING, cause=cause)),
    )
    view = await client.saga(None, "order-1").cancel("changed my mind")
    assert orchestrator.requests == [
        orchestrator_pb2.CancelSagaRequest(namespace="default", saga_id="order-1", reason="changed my mind")
    ]
    assert view.cause is not None
    assert view.cause.kind is CauseKind.DEADLINE
    assert view.cause.deadline == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


async def test_operators_repair_with_a_reason(orchestrator: ScriptedOrchestrator) -> None:
    saga = saga_of(saga_pb2.SAGA_STATUS_RUNNING)
    orchestrator.returns("RetrySaga", operator_pb2.RetrySagaResponse(saga=saga))
    orchestrator.returns("ResolveStep", operator_pb2.ResolveStepResponse(saga=saga))
    orchestrator.returns("FailSaga", operator_pb2.FailSagaResponse(saga=saga))
    async with Client(orchestrator.address, namespace="shop") as client:
        await client.retry("o", reason="repaired")
        await client.resolve("o", "a", Resolution.SUCCEEDED, output=Receipt("p"), reason="seen it")
        view = await client.fail("o", reason="enough")
    assert view.status is SagaStatus.RUNNING
    assert orchestrator.requests == [
        operator_pb2.RetrySagaRequest(namespace="shop", saga_id="o", reason="repaired"),
        operator_pb2.ResolveStepRequest(
            namespace="shop",
            saga_id="o",
            step="a",
            resolution=saga_pb2.STEP_RESOLUTION_SUCCEEDED,
            output=payload_pb2.Payload(json='{"payment_id":"p"}'),
            reason="seen it",
        ),
        operator_pb2.FailSagaRequest(namespace="shop", saga_id="o", reason="enough"),
    ]


async def test_lists_go_through_all_pages(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    async def page(request: orchestrator_pb2.ListSagasRequest, _: Context) -> object:
        number = int(request.page_token or 0)
        return orchestrator_pb2.ListSagasResponse(
            sagas=[saga_pb2.Saga(saga_id=f"{number}{each}") for each in "ab"],
            next_page_token=str(number + 1) if number < 2 else "",
        )

    orchestrator.on("ListSagas", page)
    found = [
        view.id
        async for view in client.list(
            status=SagaStatus.STUCK,
            definition="order",
            labels={"a": "b"},
            created_after=datetime(2026, 1, 1, tzinfo=UTC),
            running_longer_than=timedelta(minutes=1),
        )
    ]
    assert found == ["0a", "0b", "1a", "1b", "2a", "2b"]
    requests = orchestrator.of(orchestrator_pb2.ListSagasRequest)
    assert [each.page_token for each in requests] == ["", "1", "2"]
    assert {each.filter.SerializeToString(deterministic=True) for each in requests} == {
        orchestrator_pb2.SagaFilter(
            statuses=[saga_pb2.SAGA_STATUS_STUCK],
            definition="order",
            labels={"a": "b"},
            created_after=timestamp_pb2.Timestamp(seconds=1767225600),
            running_longer_than=duration_pb2.Duration(seconds=60),
        ).SerializeToString(deterministic=True)
    }
    with pytest.raises(ValueError, match="has no time zone"):
        await anext(client.list(created_before=datetime(2026, 1, 1)))  # noqa: DTZ001 - the mistake under test


async def test_definitions_are_checked_registered_and_listed(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    definition = definition_pb2.Definition(name="order", version=2)
    finding = definition_pb2.Diagnostic(code="NO_STEPS")
    orchestrator.returns("CheckDefinition", orchestrator_pb2.CheckDefinitionResponse(diagnostics=[finding]))
    orchestrator.returns("ListDefinitions", orchestrator_pb2.ListDefinitionsResponse(definitions=[definition]))
    assert list((await client.check(definition)).diagnostics) == [finding]
    assert (await client.register(order_saga())).definition.digest == "sha256:1"
    assert [each async for each in client.definitions("order")] == [definition]
    assert orchestrator.requests == [
        orchestrator_pb2.CheckDefinitionRequest(namespace="default", definition=definition),
        orchestrator_pb2.RegisterDefinitionRequest(namespace="default", definition=order_saga().definition()),
        orchestrator_pb2.ListDefinitionsRequest(namespace="default", name="order"),
    ]


async def test_participants_are_put_listed_and_deleted(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    shop = operator_pb2.Participant(name="shop", address="127.0.0.1:1", concurrency_max=3)
    orchestrator.returns("PutParticipant", operator_pb2.PutParticipantResponse(participant=shop))
    orchestrator.returns("ListParticipants", operator_pb2.ListParticipantsResponse(participants=[shop]))
    orchestrator.returns("DeleteParticipant", operator_pb2.DeleteParticipantResponse())
    assert await client.put_participant("shop", "127.0.0.1:1", concurrency_max=3) == shop
    assert [each async for each in client.participants()] == [shop]
    await client.delete_participant("shop")
    assert orchestrator.requests == [
        operator_pb2.PutParticipantRequest(participant=shop),
        operator_pb2.ListParticipantsRequest(),
        operator_pb2.DeleteParticipantRequest(name="shop"),
    ]


async def test_what_is_not_served_says_so(client: Client) -> None:
    with pytest.raises(Unimplemented, match="FailSaga is not scripted"):
        await client.fail("a", reason="b")


async def test_a_start_that_fails_tells_the_id_so_that_it_can_be_repeated(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("StartSaga", grpc.StatusCode.DEADLINE_EXCEEDED)
    with pytest.raises(DeadlineExceeded) as caught:
        await client.start("order", 1)
    (request,) = orchestrator.of(orchestrator_pb2.StartSagaRequest)
    assert caught.value.saga_id == request.saga_id
    assert request.saga_id in str(caught.value)


async def test_an_empty_id_is_refused(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    with pytest.raises(ValueError, match="empty"):
        await client.start("order", 1, id="")
    assert not orchestrator.requests


@pytest.mark.parametrize("watch", [False, True])
async def test_closing_tells_other_tasks_that_it_did(orchestrator: ScriptedOrchestrator, watch: bool) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hang(_: object, context: Context) -> None:
        asked.set()
        await never.wait()

    async def hang_on(_: object, context: Context) -> AsyncGenerator[bytes, None]:
        await hang(_, context)
        yield b""

    orchestrator.on("GetSaga", hang)
    orchestrator.on_stream("WatchSaga", hang_on)

    async def use(saga: Any) -> None:
        if watch:
            _ = [event async for event in saga.watch()]
        else:
            await saga.wait()

    async with Client(orchestrator.address) as client:
        using = asyncio.create_task(use(client.saga(None, "order-1")))
        async with asyncio.timeout(WAIT_S):
            await asked.wait()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(AmendsError, match="closed"):
            await using
    never.set()
