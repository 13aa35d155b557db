"""Group F: cancelling, and commands that do not fit the saga's state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from amends import CauseKind, Resolution, SagaStatus, StepStatus
from amends.errors import Compensated
from amends.payloads import encode
from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    THREE,
    Gate,
    Refusal,
    World,
    definition,
    hang,
    refusal_of,
    refuse,
    step,
    system_error,
)


@OVER_BOTH_LINKS
async def test_f50_a_cancel_turns_round_once_the_step_in_flight_is_settled(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    result = asyncio.create_task(saga.result())
    await gate.reached()
    view = await saga.cancel("the customer changed their mind")
    assert view.status is SagaStatus.COMPENSATING
    assert [each.status for each in view.steps] == [StepStatus.SUCCEEDED, StepStatus.RUNNING, StepStatus.PENDING]
    assert world.ledger.names() == ["one", "two"]
    gate.release()
    with pytest.raises(Compensated, match="the customer changed their mind") as caught:
        await result
    assert world.ledger.lines() == [
        f"{what} {name}" for name in ("one", "two", "undo two", "undo one") for what in ("start", "end")
    ]
    assert world.ledger.effects() == []
    assert caught.value.cause is not None
    assert caught.value.cause.kind is CauseKind.CANCEL
    assert [each.status for each in caught.value.steps] == [
        StepStatus.COMPENSATED,
        StepStatus.COMPENSATED,
        StepStatus.PENDING,
    ]
    assert "saga_completed" not in [event.kind for event in await world.journal()]


async def test_f50_a_step_that_is_refused_after_the_cancel_needs_no_undoing(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before(refuse("NO")))
    saga = await world.start(THREE)
    await gate.reached()
    await saga.cancel("enough")
    gate.release()
    view = await world.settled(saga)
    assert view.status is SagaStatus.COMPENSATED
    assert view.cause is not None
    assert (view.cause.kind, view.cause.reason) == (CauseKind.CANCEL, "enough")
    assert world.ledger.names() == ["one", "two", "undo one"]


async def test_f50_a_step_without_answer_is_undone_after_its_timeout(world: World) -> None:
    world.worker.on("two", hang(effect=True))
    two = step("two", timeout_s=0.5, attempts=1, undo_timeout_s=30)  # though the cancel comes later than its time is up
    saga = await world.start(definition("d", "one", two, "three"))
    await world.ledger.until(lambda ledger: ledger.effects_ever("s", "two"))
    await saga.cancel("enough")
    view = await world.settled(saga)
    assert view.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []


async def test_f50_a_step_that_waits_for_its_retry_is_not_tried_again(world: World) -> None:
    world.worker.on("two", system_error())
    saga = await world.start(definition("d", "one", step("two", interval_s=60, interval_max_s=60), "three"))
    await world.until("s", "step_retry_scheduled")
    await saga.cancel("enough")
    assert (await world.settled(saga)).status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]


async def test_f50_of_cancels_and_an_answer_at_the_same_time_one_wins_and_all_say_which(world: World) -> None:
    """The cancels race with the last step's answer. What they say, and the journal, and the effects are one story."""
    for i in range(20):
        gate, saga_id = Gate(), f"s{i}"
        world.worker.on("three", gate.before(), saga=saga_id)
        saga = await world.start(THREE, id=saga_id)
        await gate.reached()
        gate.release()
        answers = await asyncio.gather(*(saga.cancel(f"no {n}") for n in range(3)), return_exceptions=True)
        view = await world.settled(saga)
        if view.status is SagaStatus.COMPLETED:
            assert [getattr(answer, "reason", None) for answer in answers] == ["SAGA_COMPLETED"] * 3
            assert world.ledger.effects(saga_id) == ["one", "two", "three"]
        else:
            assert view.status is SagaStatus.COMPENSATED
            assert {str(getattr(answer, "cause", answer)) for answer in answers} == {str(view.cause)}
            assert world.ledger.effects(saga_id) == []


async def refused(call: Awaitable[object]) -> Refusal:
    """How a call was refused; it must have been, with an ErrorInfo."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    refusal = refusal_of(caught.value)
    assert refusal.reason
    return refusal


async def test_f51_what_does_not_fit_a_completed_saga_is_refused(world: World) -> None:
    await world.run(THREE)
    before = await world.journal()
    cancel, operator = orchestrator_pb2.CancelSagaRequest(saga_id="s", reason="late"), world.wire.operator
    refusal = await refused(world.wire.orchestrator.CancelSaga(cancel))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SAGA_COMPLETED")
    assert refusal.metadata["saga_id"] == "s"
    late: dict[str, Awaitable[object]] = {
        "retry": operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="s", reason="late")),
        "pause": operator.PauseSaga(operator_pb2.PauseSagaRequest(saga_id="s", reason="late")),
        "fail": operator.FailSaga(operator_pb2.FailSagaRequest(saga_id="s", reason="late")),
        "resolve": operator.ResolveStep(
            operator_pb2.ResolveStepRequest(
                saga_id="s", step="one", resolution=saga_pb2.STEP_RESOLUTION_SKIPPED, reason="late"
            )
        ),
    }
    for name, call in late.items():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SAGA_FINAL"), name
    assert await world.journal() == before
    assert world.ledger.names() == ["one", "two", "three"]


async def test_f51_a_second_cancel_changes_nothing(world: World) -> None:
    gate = Gate()
    world.worker.on("undo one", gate.before())
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    await gate.reached()
    first = await saga.cancel("the first")
    second = await saga.cancel("the second")
    assert first == second
    gate.release()
    end = await world.settled(saga)
    assert end.status is SagaStatus.COMPENSATED
    calls = world.ledger.names()
    assert await saga.cancel("the third") == end
    assert end.cause is not None
    assert end.cause.reason == "the first"
    assert world.ledger.names() == calls
    assert [event.kind for event in await world.journal()].count("saga_turned_back") == 1


async def test_f51_an_unknown_saga_is_not_found(world: World) -> None:
    requests: list[Callable[[], Awaitable[object]]] = [
        lambda: world.wire.orchestrator.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id="nobody")),
        lambda: world.wire.orchestrator.GetSaga(orchestrator_pb2.GetSagaRequest(saga_id="nobody")),
        lambda: world.wire.orchestrator.GetSaga(orchestrator_pb2.GetSagaRequest(saga_id="nobody", wait=True)),
        lambda: world.wire.orchestrator.WatchSaga(orchestrator_pb2.WatchSagaRequest(saga_id="nobody")).read(),
        lambda: world.wire.operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="nobody", reason="why not")),
        lambda: world.wire.operator.FailSaga(operator_pb2.FailSagaRequest(saga_id="nobody", reason="why not")),
    ]
    for request in requests:
        refusal = await refused(request())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")
        assert refusal.metadata["saga_id"] == "nobody"


async def test_f51_a_saga_past_its_pivot_is_not_turned_round(world: World) -> None:
    gate = Gate()
    world.worker.on("three", gate.before())
    made = definition("d", "one", step("two", kind="PIVOT"), step("three", kind="RETRIABLE"))
    saga = await world.start(made)
    await gate.reached()
    request = orchestrator_pb2.CancelSagaRequest(saga_id="s", reason="late")
    refusal = await refused(world.wire.orchestrator.CancelSaga(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PIVOT_DISPATCHED")
    gate.release()
    assert (await world.settled(saga)).status is SagaStatus.COMPLETED
    assert world.ledger.names() == ["one", "two", "three"]


async def test_f51_a_running_saga_is_neither_retried_nor_given_up_nor_resolved(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    await gate.reached()
    operator, before = world.wire.operator, await world.journal()
    resolve = {"resolution": saga_pb2.STEP_RESOLUTION_SKIPPED, "reason": "why not", "saga_id": "s"}
    wrong: dict[str, Awaitable[object]] = {
        "NOTHING_TO_RETRY": operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="s", reason="why not")),
        "SAGA_NOT_STUCK": operator.FailSaga(operator_pb2.FailSagaRequest(saga_id="s", reason="why not")),
        "CALL_IN_FLIGHT": operator.ResolveStep(operator_pb2.ResolveStepRequest(step="two", **resolve)),
        "RESOLUTION_NOT_ALLOWED": operator.ResolveStep(operator_pb2.ResolveStepRequest(step="one", **resolve)),
    }
    for reason, call in wrong.items():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    refusal = await refused(operator.ResolveStep(operator_pb2.ResolveStepRequest(step="four", **resolve)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "STEP_UNKNOWN")
    assert await world.journal() == before
    gate.release()
    assert (await world.settled(saga)).status is SagaStatus.COMPLETED


async def test_f_an_operator_gives_no_output_that_the_schema_does_not_allow(world: World) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "string"}}}
    world.worker.on("two", system_error())
    await world.run(definition("typed", step("two", kind="PIVOT", attempts=1, output_schema=schema)))
    before = await world.journal()
    request = operator_pb2.ResolveStepRequest(
        saga_id="s",
        step="two",
        resolution=saga_pb2.STEP_RESOLUTION_SUCCEEDED,
        reason="it was sent",
        output=encode({"id": 7}),
    )
    refusal = await refused(world.wire.operator.ResolveStep(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "OUTPUT_REFUSED")
    assert list(refusal.violations) == ["output.id"]
    assert await world.journal() == before
    await world.client.resolve("s", "two", Resolution.SUCCEEDED, output={"id": "7"}, reason="it was sent")
    assert (await world.settled("s")).status is SagaStatus.COMPLETED
