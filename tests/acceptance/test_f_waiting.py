"""Cases 44 and 52: participants that are at work for long, and sagas that begin or go on later."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise

import grpc
import pytest
from google.protobuf import timestamp_pb2

from amends import EventKind, SagaStatus, StepStatus
from amends.payloads import encode
from amends.v1 import operator_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    THREE,
    Gate,
    Process,
    World,
    definition,
    in_progress,
    refusal_of,
    rule,
    step,
    succeed,
)

SUCCESS = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=encode({"n": 7}))
REFUSAL = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=payload_pb2.Error(code="NO"))


def token_of(world: World, name: str, saga: str = "s") -> str:
    return world.ledger.calls(saga, name)[-1].execute_request.call.completion_token


async def complete(world: World, step: str, reply: saga_pb2.Reply, *, token: str | None = None) -> saga_pb2.Saga:
    request = orchestrator_pb2.CompleteStepRequest(
        saga_id="s", step=step, reply=reply, token=token_of(world, step) if token is None else token
    )
    return (await world.wire.orchestrator.CompleteStep(request, timeout=10)).saga


async def waiting(world: World) -> None:
    """Start a saga that waits for its second step."""
    world.worker.on("two", in_progress())
    await world.start(THREE)
    await world.until("s", EventKind.STEP_DEFERRED, "two")


async def test_f52_a_step_that_waits_is_finished_by_its_token_and_only_that_step_goes_on(world: World) -> None:
    await waiting(world)
    saga = await world.client.get("s")
    assert (saga.status, saga.step("two").status) == (SagaStatus.RUNNING, StepStatus.WAITING)
    await complete(world, "two", SUCCESS)
    done = await world.settled("s")
    assert done.status is SagaStatus.COMPLETED
    assert world.ledger.names() == ["one", "two", "three"]
    assert done.step("two").message.output.json == '{"n":7}'


async def test_f52_the_same_outcome_again_is_harmless_and_another_one_is_too_late(world: World) -> None:
    await waiting(world)
    gate = Gate()
    world.worker.on("three", gate.before())
    await complete(world, "two", SUCCESS)
    sequence = (await complete(world, "two", SUCCESS)).sequence
    assert sequence == (await complete(world, "two", SUCCESS)).sequence
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(world, "two", REFUSAL)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STEP_NOT_WAITING")
    assert EventKind.LATE_REPLY_RECORDED in [event.kind for event in await world.journal()]
    gate.release()
    assert (await world.settled("s")).status is SagaStatus.COMPLETED


async def test_f52_work_that_is_refused_turns_the_saga_back(world: World) -> None:
    await waiting(world)
    await complete(world, "two", REFUSAL)
    assert (await world.settled("s")).status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo one"]


async def test_f52_a_refusal_that_is_brought_twice_says_nothing_of_the_work_of_the_next_attempt(world: World) -> None:
    """I4: else the saga would be COMPENSATED, and what the second attempt is at work on would stay."""
    world.worker.on("two", in_progress(), in_progress())
    await world.start(definition("again", "one", step("two", attempts=3, on_error=[rule("retry", "NO")])))
    await world.until("s", EventKind.STEP_DEFERRED, "two")
    first = token_of(world, "two")
    for _ in range(2):  # the next attempt may be in flight meanwhile: whoever repeats it need not wait for that one
        await complete(world, "two", REFUSAL, token=first)
    async for event in world.client.saga(None, "s").watch():
        if event.kind == EventKind.STEP_DEFERRED and event.message.step_deferred.attempt == 2:
            break
    assert (await complete(world, "two", REFUSAL, token=first)).status == saga_pb2.SAGA_STATUS_RUNNING
    await world.client.saga(None, "s").cancel("the customer has left")
    assert (await world.settled("s")).status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "two", "undo two", "undo one"]


async def test_f52_a_token_cannot_be_guessed_or_taken_from_another_saga(world: World) -> None:
    await waiting(world)
    await world.start(THREE, id="other")
    await world.until("other", EventKind.STEP_DEFERRED, "two")
    stolen = token_of(world, "two", "other")
    for token in ("", "x", stolen, token_of(world, "one"), token_of(world, "two")[:-4] + "AAAA"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await complete(world, "two", SUCCESS, token=token)
        refusal = refusal_of(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TOKEN_INVALID")
    assert (await world.client.get("s")).step("two").status is StepStatus.WAITING


@OVER_BOTH_LINKS
async def test_f52_an_outcome_may_come_before_the_answer_that_it_is_in_progress(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before(in_progress()))
    await world.start(THREE)
    await gate.reached()
    bringing = complete(world, "one", SUCCESS)
    gate.release()
    await bringing
    assert (await world.settled("s")).status is SagaStatus.COMPLETED
    assert world.ledger.names() == ["one", "two", "three"]


@OVER_BOTH_LINKS
async def test_f52_a_participant_that_asks_for_it_is_asked_again(world: World) -> None:
    world.worker.on("two", in_progress(0.1), in_progress(0.1), succeed())
    saga = await world.run(definition("polled", "one", step("two", attempts=1), "three"))
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.names() == ["one", "two", "two", "two", "three"]
    assert len(world.ledger.keys("s", "two")) == 1
    began = [record.time_s for record in world.ledger.calls("s", "two")]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(began))


async def test_f52_an_operator_can_have_a_participant_asked_now(world: World) -> None:
    world.worker.on("two", in_progress(), succeed())
    await world.start(THREE)
    await world.until("s", EventKind.STEP_DEFERRED, "two")
    await world.wire.operator.RetrySaga(operator_pb2.RetrySagaRequest(saga_id="s", reason="the callback was lost"))
    assert (await world.settled("s")).status is SagaStatus.COMPLETED


async def test_f52_the_deadline_of_the_step_bounds_the_wait(world: World) -> None:
    world.worker.on("two", in_progress())
    saga = await world.run(definition("late", "one", step("two", deadline_s=1), "three"))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    error = saga.step("two").error
    assert error is not None
    assert error.code == "DEADLINE_EXCEEDED"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await complete(world, "two", SUCCESS)
    assert refusal_of(caught.value).reason == "STEP_NOT_WAITING"


async def test_f52_a_cancel_undoes_what_is_being_done(world: World) -> None:
    await waiting(world)
    await world.wire.orchestrator.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id="s", wait=True))
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert (await world.client.get("s")).status is SagaStatus.COMPENSATED


async def test_f52_a_compensation_in_progress_is_asked_again_by_its_policy(world: World) -> None:
    world.worker.on("two", in_progress())
    world.worker.on("undo two", in_progress(), succeed())
    await world.start(THREE)
    await world.until("s", EventKind.STEP_DEFERRED, "two")
    await world.wire.orchestrator.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id="s", wait=True))
    assert world.ledger.names() == ["one", "two", "undo two", "undo two", "undo one"]


async def test_d44_a_saga_that_waits_for_its_participant_survives_kill_and_restart(
    killable: World, server: Process
) -> None:
    await waiting(killable)
    token = token_of(killable, "two")
    await server.kill()
    await server.start()
    saga = await killable.client.get("s")
    assert saga.step("two").status is StepStatus.WAITING
    await complete(killable, "two", SUCCESS, token=token)
    assert (await killable.settled("s")).status is SagaStatus.COMPLETED
    assert killable.ledger.names() == ["one", "two", "three"]


async def test_d44_a_question_that_came_due_meanwhile_is_asked(killable: World, server: Process) -> None:
    killable.worker.on("two", in_progress(0.2), succeed())
    await killable.start(THREE)
    await killable.until("s", EventKind.STEP_DEFERRED, "two")
    await server.kill()
    await server.start()
    assert (await killable.settled("s")).status is SagaStatus.COMPLETED
    assert killable.ledger.names() == ["one", "two", "two", "three"]


async def test_d44_a_branch_that_was_not_taken_stays_so(killable: World, server: Process) -> None:
    killable.worker.on("three", in_progress())
    branch = definition("branch", "one", step("two", when="input.n > 1"), "three")
    await killable.start(branch, {"n": 0})
    await killable.until("s", EventKind.STEP_DEFERRED, "three")
    await server.kill()
    await server.start()
    await complete(killable, "three", SUCCESS)
    saga = await killable.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("two").status is StepStatus.SKIPPED
    assert killable.ledger.names() == ["one", "three"]


# Timers


def after(delay_s: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round((time.time() + delay_s) * 1_000_000))
    return stamp


async def test_f_a_saga_begins_at_its_start_time_and_not_before(world: World) -> None:
    await world.client.register(THREE)
    start_time = after(0.4)
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", definition={"name": "three"}, start_time=start_time)
    started = await world.wire.orchestrator.StartSaga(request)
    assert started.saga.status == saga_pb2.SAGA_STATUS_PENDING
    assert started.saga.due_time == start_time
    again = await world.wire.orchestrator.StartSaga(request)
    assert not again.created
    saga = await world.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    dispatched = await world.until("s", EventKind.STEP_DISPATCHED, "one")
    assert dispatched.time >= datetime.fromtimestamp(start_time.ToMicroseconds() / 1e6, UTC)


async def test_f_a_start_time_survives_a_restart_and_can_be_cancelled(killable: World, server: Process) -> None:
    await killable.client.register(THREE)
    for name, delay_s in (("soon", 0.5), ("never", 3_600.0)):
        await killable.wire.orchestrator.StartSaga(
            orchestrator_pb2.StartSagaRequest(saga_id=name, definition={"name": "three"}, start_time=after(delay_s))
        )
    await server.kill()
    await server.start()
    assert (await killable.settled("soon")).status is SagaStatus.COMPLETED
    await killable.wire.orchestrator.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id="never"))
    assert (await killable.settled("never")).status is SagaStatus.COMPENSATED
    assert killable.ledger.names("never") == []


async def test_f_a_step_with_a_delay_is_not_early(world: World) -> None:
    saga = await world.run(definition("delayed", "one", step("two", delay_s=0.3), "three"))
    assert saga.status is SagaStatus.COMPLETED
    ended = next(record.time_s for record in world.ledger.records("s") if (record.kind, record.step) == ("end", "one"))
    assert world.ledger.calls("s", "two")[0].time_s - ended >= 0.3
    assert EventKind.STEP_DELAYED in [event.kind for event in await world.journal()]
