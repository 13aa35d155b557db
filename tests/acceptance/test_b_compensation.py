"""Group B: failures, and what is undone for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from amends import Call, CauseKind, EventKind, Participant, Saga, SagaStatus, SagaView, StepStatus, serving
from amends.v1 import definition_pb2, operator_pb2, participant_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    THREE,
    UNAVAILABLE,
    Gate,
    InProcess,
    ScriptedParticipant,
    World,
    definition,
    refuse,
    status,
    step,
    succeed,
    system_error,
)

FAILED, PENDING, SUCCEEDED = StepStatus.FAILED, StepStatus.PENDING, StepStatus.SUCCEEDED
COMPENSATED, COMPENSATION_FAILED = StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED


def statuses(saga: SagaView) -> list[StepStatus]:
    return [each.status for each in saga.steps]


async def test_b11_the_first_step_refused_compensates_nothing(world: World) -> None:
    world.worker.on("one", refuse("OUT_OF_STOCK", "none left"))
    saga = await world.run(THREE)
    assert world.ledger.names() == ["one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert statuses(saga) == [FAILED, PENDING, PENDING]
    error = saga.step("one").error
    assert error is not None
    assert (error.code, error.message, error.participant) == ("OUT_OF_STOCK", "none left", "worker")
    assert saga.cause is not None
    assert (saga.cause.kind, saga.cause.step, saga.cause.error) == (CauseKind.STEP, "one", error)


@OVER_BOTH_LINKS
async def test_b12_the_third_of_three_refused_undoes_two_then_one(world: World) -> None:
    world.worker.on("three", refuse("NO_CARRIER", "nobody goes there"))
    saga = await world.run(THREE)
    order = ["one", "two", "three", "undo two", "undo one"]
    assert world.ledger.lines() == [line for name in order for line in (f"start {name}", f"end {name}")]
    assert world.ledger.effects("s") == []
    assert saga.status is SagaStatus.COMPENSATED
    assert statuses(saga) == [COMPENSATED, COMPENSATED, FAILED]
    assert saga.cause is not None
    assert saga.cause.step == "three"
    assert str(saga.cause.error) == str(saga.step("three").error) == "NO_CARRIER: nobody goes there"
    assert [each.compensation_attempts for each in saga.steps] == [1, 1, 0]


async def test_b13_a_step_that_needs_no_compensation_is_passed_over(world: World) -> None:
    world.worker.on("three", refuse())
    saga = await world.run(definition("passing", "one", step("two", undo=False), "three"))
    assert world.ledger.names() == ["one", "two", "three", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert statuses(saga) == [COMPENSATED, SUCCEEDED, FAILED]
    assert [each.message.compensation_not_needed for each in saga.steps] == [False, True, False]
    omitted = [event.step for event in await world.journal() if event.kind is EventKind.COMPENSATION_OMITTED]
    assert omitted == ["two"]


RESULT = definition(
    "results",
    step("result", input={"result": "${input.result}"}, arguments={"hold": "${steps.result.output.result}", "n": 1}),
    step("two", input="${steps.result.output}"),
)


def undo_request(world: World, attempt: int) -> participant_pb2.CompensateRequest:
    [record] = [each for each in world.ledger.calls("s", "undo result") if each.attempt == attempt]
    return record.compensate_request


async def test_b14_a_compensation_gets_output_input_template_saga_input_and_cause(tmp_path: Path) -> None:
    orchestrator, gate = InProcess(tmp_path / "amends.db", drain_s=0), Gate()
    async with World.opened(tmp_path, orchestrator) as world:
        world.worker.on("result", succeed({"result": "H-1"}))
        world.worker.on("two", refuse("NO", "not today"))
        world.worker.on("undo result", gate.before())
        handle = await world.start(RESULT, {"result": "from input", "customer": "ada"})
        await gate.reached()
        await orchestrator.restart()
        await gate.reached(2)
        gate.release()
        assert (await world.settled(handle)).status is SagaStatus.COMPENSATED
        first, again = undo_request(world, 1), undo_request(world, 2)
        [action] = world.ledger.calls("s", "result")
    assert json.loads(first.output.json) == {"result": "H-1"}
    assert first.input == action.execute_request.input
    assert json.loads(first.input.json) == {"result": "from input"}
    assert json.loads(first.arguments.json) == {"hold": "H-1", "n": 1}
    assert json.loads(first.saga_input.json) == {"result": "from input", "customer": "ada"}
    assert (first.cause.step.step, first.cause.step.error.code) == ("two", "NO")
    assert first.cause.step.error.message == "not today"
    assert first.execute_key == action.key
    assert first.action == "result"
    for request in (first, again):
        for field in ("attempt", "epoch", "expire_time", "completion_token"):
            request.call.ClearField(field)
    assert first == again


async def test_b15_a_business_error_without_a_rule_turns_the_saga_back(world: World) -> None:
    world.worker.on("two", refuse("UNHEARD_OF", "no rule knows this"))
    saga = await world.run(definition("four_steps", "one", "two", "three", "four"))
    assert world.ledger.names() == ["one", "two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert statuses(saga) == [COMPENSATED, FAILED, PENDING, PENDING]
    assert world.ledger.effects() == []


@OVER_BOTH_LINKS
async def test_b18_an_unknown_outcome_is_undone_like_a_success(world: World) -> None:
    gate = Gate()
    lost = status(grpc.StatusCode.UNAVAILABLE, "lost", effect=True)
    world.worker.on("two", lost, gate.after(lost))
    handle = await world.start(definition("unknown", "one", step("two", attempts=2), "three"))
    await gate.reached()
    pause = operator_pb2.PauseSagaRequest(saga_id="s", reason="to look at it")
    await world.wire.operator.PauseSaga(pause)
    gate.release()
    await world.until("s", "step_given_up", "two")
    paused = await handle.status()
    assert paused.step("two").status is StepStatus.UNKNOWN
    assert world.ledger.effects() == ["one", "two"]
    await world.wire.operator.ResumeSaga(operator_pb2.ResumeSagaRequest(saga_id="s", reason="seen"))
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    assert statuses(saga) == [COMPENSATED, COMPENSATED, PENDING]
    for name in ("one", "two"):
        [undo] = world.ledger.calls("s", f"undo {name}")
        assert {undo.execute_key} == world.ledger.keys("s", name)
    assert not undo.compensate_request.HasField("output"), "nothing is known of an output"
    error = saga.step("two").error
    assert error is not None
    assert error.code == "UNAVAILABLE"


async def gone(world: World) -> ScriptedParticipant:
    """A participant that is registered and not there. Where it was, nobody listens."""
    participant = ScriptedParticipant("gone", world.ledger)
    await world.add_participant(participant)
    await participant.stop()
    return participant


async def test_b19_a_participant_out_of_reach_is_retried_then_the_earlier_steps_are_undone(world: World) -> None:
    await gone(world)
    saga = await world.run(definition("reaching", "one", "two", step("three", participant="gone", undo=False)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    three = saga.step("three")
    assert (three.status, three.attempts) == (StepStatus.UNKNOWN, 3)
    assert three.error is not None
    assert (three.error.code, three.error.participant) == ("UNAVAILABLE", "gone")


async def test_b19_a_participant_that_comes_back_during_the_rollback_is_asked_to_undo(world: World) -> None:
    participant = await gone(world)
    handle = await world.start(definition("back", "one", step("two", participant="gone", undo_attempts=-1)))
    await world.until("s", "compensation_retry_scheduled", "two")
    await participant.start()
    saga = await world.settled(handle)
    await participant.close()
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "undo two", "undo one"]
    assert world.ledger.effects() == []


async def test_b19_a_participant_gone_for_good_leaves_a_stuck_saga_not_a_running_one(world: World) -> None:
    participant = await gone(world)
    handle = await world.start(definition("for_good", "one", step("two", participant="gone")))
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.STUCK
    assert saga.stuck is not None
    assert saga.stuck.steps == ("two",)
    assert world.ledger.names() == ["one"]
    participant.address = ""
    await world.add_participant(participant)
    await world.client.retry("s", reason="it is back, at another address")
    saga = await world.settled(handle)
    await participant.close()
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "undo two", "undo one"]


@OVER_BOTH_LINKS
@pytest.mark.parametrize("fault", [UNAVAILABLE, system_error(), status(grpc.StatusCode.INTERNAL)])
async def test_b20_a_compensation_that_fails_once_is_asked_again(world: World, fault: object) -> None:
    world.worker.on("two", refuse())
    world.worker.on("undo one", fault, succeed())
    saga = await world.run(definition("two_steps", "one", "two"))
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("one").compensation_attempts == 2
    assert world.ledger.names() == ["one", "two", "undo one", "undo one"]
    assert len(world.ledger.keys("s", "undo one")) == 1
    assert world.ledger.effects() == []


def failing_undo(on_compensation_failure: str) -> definition_pb2.Definition:
    return definition("failing", "one", "two", "three", on_compensation_failure=on_compensation_failure)


async def stuck_sagas(world: World) -> list[str]:
    return [saga.id async for saga in world.client.list(status=SagaStatus.STUCK)]


def assert_only_two_is_blamed(saga: SagaView) -> None:
    assert saga.stuck is not None
    assert saga.stuck.steps == ("two",)
    assert saga.stuck.compensating
    assert [each.id for each in saga.steps if each.compensation_error] == ["two"]
    assert saga.step("two").compensation_error == saga.stuck.error
    assert saga.step("two").compensation_attempts == 3
    assert (saga.stuck.error.code, saga.stuck.error.message) == ("JAMMED", "the door is shut")


async def test_b21_halt_stops_at_the_compensation_that_failed_for_good(world: World) -> None:
    world.worker.on("three", refuse())
    world.worker.on("undo two", system_error("JAMMED", "the door is shut"))
    saga = await world.run(failing_undo("HALT"))
    assert saga.status is SagaStatus.STUCK
    assert world.ledger.names() == ["one", "two", "three", *["undo two"] * 3]
    assert statuses(saga) == [SUCCEEDED, COMPENSATION_FAILED, FAILED]
    assert_only_two_is_blamed(saga)
    assert await stuck_sagas(world) == ["s"]


async def test_b21_continue_undoes_what_can_be_undone_and_is_stuck_then(world: World) -> None:
    world.worker.on("three", refuse())
    world.worker.on("undo two", system_error("JAMMED", "the door is shut"))
    saga = await world.run(failing_undo("CONTINUE"))
    assert saga.status is SagaStatus.STUCK
    assert world.ledger.names() == ["one", "two", "three", *["undo two"] * 3, "undo one"]
    assert statuses(saga) == [COMPENSATED, COMPENSATION_FAILED, FAILED]
    assert_only_two_is_blamed(saga)
    assert world.ledger.effects() == ["two"]
    assert await stuck_sagas(world) == ["s"]


@OVER_BOTH_LINKS
async def test_b22_a_refused_compensation_is_not_counted_as_done(world: World) -> None:
    world.worker.on("two", refuse())
    world.worker.on("undo one", refuse("TOO_LATE", "it is eaten"))
    saga = await world.run(definition("two_steps", "one", "two"))
    assert saga.status is SagaStatus.STUCK
    assert world.ledger.names() == ["one", "two", "undo one"]
    assert world.ledger.effects() == ["one"]
    one = saga.step("one")
    assert one.status is COMPENSATION_FAILED
    assert str(one.compensation_error) == "TOO_LATE: it is eaten"


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION]
)
async def test_b22_a_status_is_not_already_undone(world: World, code: grpc.StatusCode) -> None:
    world.worker.on("two", refuse())
    world.worker.on("undo one", status(code))
    saga = await world.run(definition("two_steps", "one", "two"))
    assert saga.status is SagaStatus.STUCK
    assert saga.step("one").status is COMPENSATION_FAILED
    assert world.ledger.effects() == ["one"]


@pytest.mark.parametrize("policy", ["HALT", "CONTINUE"])
async def test_b23_a_retry_after_the_repair_calls_only_what_is_left(world: World, policy: str) -> None:
    world.worker.on("four", refuse())
    world.worker.on("undo two", system_error())
    four = definition("four_steps", "one", "two", "three", "four", on_compensation_failure=policy)
    handle = await world.start(four)
    assert (await world.settled(handle)).status is SagaStatus.STUCK
    before = len(world.ledger.calls())
    world.worker.on("undo two", succeed())
    await world.client.retry("s", reason="the door is open")
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.stuck is None
    left = ["undo two", "undo one"] if policy == "HALT" else ["undo two"]
    assert world.ledger.names()[before:] == left
    assert world.ledger.names().count("undo three") == 1
    assert len(world.ledger.keys("s", "undo two")) == 1
    assert world.ledger.effects() == []
    assert await stuck_sagas(world) == []


@OVER_BOTH_LINKS
async def test_b24_a_compensation_runs_once_to_success(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    handle = await world.start(THREE)
    await gate.reached()
    await handle.cancel("changed my mind")
    gate.release()
    ended = await world.settled(handle)
    assert ended.status is SagaStatus.COMPENSATED
    calls = world.ledger.names()
    assert calls == ["one", "two", "undo two", "undo one"]
    again = await handle.cancel("really")
    assert again.message == ended.message
    assert again.cause is not None
    assert again.cause.reason == "changed my mind"
    await world.orchestrator.restart()
    await handle.cancel("and again")
    assert world.ledger.names() == calls


async def test_b25_nothing_to_undo_is_a_valid_compensation(world: World) -> None:
    world.worker.on("two", UNAVAILABLE)
    saga = await world.run(definition("nothing", "one", step("two", attempts=1)))
    assert saga.status is SagaStatus.COMPENSATED
    assert statuses(saga) == [COMPENSATED, COMPENSATED]
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects_ever("s", "two") == 0


fragile = Participant("fragile")
undone: list[tuple[str, str | None]] = []


@fragile.action
async def touch(request: str) -> str:
    raise ConnectionError("before anything happened")


@touch.compensation
async def let_go(request: str, done: str | None, call: Call) -> None:
    undone.append((request, done))


async def test_b25_a_handler_of_the_sdk_undoes_what_is_not_known_to_have_happened(world: World) -> None:
    undone.clear()
    saga = Saga("touching", input=str)
    saga.step(touch)
    async with serving(fragile, orchestrator=world.orchestrator.address):
        touching = saga.definition()
        touching.steps[0].retry.attempts_max = 1
        view = await world.run(touching, "vase")
    assert view.status is SagaStatus.COMPENSATED
    assert undone == [("vase", None)]


async def test_b12_parallel_sagas_are_undone_each_for_itself(world: World) -> None:
    await world.client.register(THREE)
    for number in range(1, 20, 2):
        world.worker.on("three", refuse(), saga=f"s{number}")
    handles = [await world.client.start(THREE.name, None, id=f"s{number}") for number in range(20)]
    views = await asyncio.gather(*(world.settled(handle) for handle in handles))
    for number, view in enumerate(views):
        assert view.status is (SagaStatus.COMPENSATED if number % 2 else SagaStatus.COMPLETED)
        undo = ["undo two", "undo one"] if number % 2 else []
        assert world.ledger.names(f"s{number}") == ["one", "two", "three", *undo]
