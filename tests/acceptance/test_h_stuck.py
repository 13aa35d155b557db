"""Group H, stuck sagas (case 58): the list says what a repair needs, and each repair works and is recorded."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest

from amends import EventKind, Resolution, SagaStatus, SagaView, StepStatus
from amends.v1 import operator_pb2, saga_pb2
from tests.acceptance.harness import World, definition, refusal_of, refuse, step, succeed

STUCK = SagaStatus.STUCK
REASON = "the night is over"
# Refusing `three` turns it back. The compensation of `two` is refused, so that of `one` is still to come.
THREE = definition("three", "one", step("two", undo_attempts=1), "three")


async def stick(world: World) -> SagaView:
    """Have the saga `s` get stuck at the compensation of its second step; the list must show it."""
    world.worker.on("three", refuse("NO_STOCK"))
    world.worker.on("undo two", refuse("LEDGER_LOCKED", "closed for the night"))
    assert (await world.run(THREE)).status is STUCK
    [listed] = [saga async for saga in world.client.list(status=STUCK)]
    assert world.ledger.names() == ["one", "two", "three", "undo two"]
    return listed


async def assert_recorded(world: World, kind: str) -> None:
    """The repair is in the journal, with its reason and who did it; the list is empty again."""
    event = await world.until("s", kind)
    assert event.reason == REASON
    assert event.principal
    assert [saga.id async for saga in world.client.list(status=STUCK)] == []


async def test_h58_the_list_shows_saga_step_reason_count_and_since_when(world: World) -> None:
    before = datetime.now(UTC)
    listed = await stick(world)
    after = datetime.now(UTC)
    assert (listed.id, listed.definition) == ("s", "three")
    assert listed.stuck is not None
    assert (listed.stuck.steps, listed.stuck.compensating, listed.stuck.count) == (("two",), True, 1)
    assert (listed.stuck.error.code, listed.stuck.error.message) == ("LEDGER_LOCKED", "closed for the night")
    assert listed.stuck.start_time is not None
    assert before <= listed.stuck.start_time <= after
    assert [(each.id, each.participant, each.compensation_attempts) for each in listed.steps] == [("two", "worker", 1)]


async def test_h58_the_count_and_the_time_are_those_of_the_last_time_it_got_stuck(world: World) -> None:
    first = (await stick(world)).stuck
    await world.client.retry("s", reason=REASON)
    assert (await world.settled("s")).status is STUCK
    [again] = [saga.stuck async for saga in world.client.list(status=STUCK)]
    assert first is not None
    assert again is not None
    assert (first.count, again.count) == (1, 2)
    assert first.start_time is not None
    assert again.start_time is not None
    assert first.start_time < again.start_time


async def test_h58_a_retry_calls_what_is_blocked_again_and_nothing_else(world: World) -> None:
    await stick(world)
    world.worker.on("undo two", succeed())
    await world.client.retry("s", reason=REASON)
    assert (await world.settled("s")).status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "three", "undo two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    await assert_recorded(world, EventKind.SAGA_RETRIED)


async def test_h58_a_step_that_was_undone_by_hand_is_not_called_again(world: World) -> None:
    await stick(world)
    await world.client.resolve("s", "two", Resolution.COMPENSATED, reason=REASON)
    view = await world.settled("s")
    assert view.status is SagaStatus.COMPENSATED
    assert [each.status for each in view.steps] == [
        StepStatus.COMPENSATED,
        StepStatus.COMPENSATED,
        StepStatus.FAILED,
    ]
    assert world.ledger.names() == ["one", "two", "three", "undo two", "undo one"]
    await assert_recorded(world, EventKind.STEP_RESOLVED)


async def test_h58_a_saga_that_is_given_up_is_final_and_keeps_what_was_left(world: World) -> None:
    await stick(world)
    view = await world.client.fail("s", reason=REASON)
    assert view.status is SagaStatus.FAILED
    assert world.ledger.effects() == ["one", "two"]
    await assert_recorded(world, EventKind.SAGA_FAILED)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.wire.operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="s", reason=REASON))
    assert refusal_of(caught.value).reason == "SAGA_FINAL"


async def test_h58_no_repair_goes_without_a_reason(world: World) -> None:
    await stick(world)
    before = await world.journal()
    operator = world.wire.operator
    skipped = saga_pb2.STEP_RESOLUTION_SKIPPED
    for call in (
        operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="s")),
        operator.ResolveStep(operator_pb2.ResolveStepRequest(saga_id="s", step="two", resolution=skipped)),
        operator.FailSaga(operator_pb2.FailSagaRequest(saga_id="s")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        refusal = refusal_of(caught.value)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["reason"]
    assert await world.journal() == before
