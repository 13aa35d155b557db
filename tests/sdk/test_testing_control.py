"""Scenarios with long work, operators and starts: what is scripted, and what is refused as a server refuses it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

import amends
from amends import PIVOT, Call, Participant, Retry, Saga
from amends.testing import Orchestrator, Scenario, check_every_failure, given


@dataclass
class Parcel:
    sku: str
    weight: int = 1


depot = Participant("depot")
pack = depot.declare("pack", Parcel, str, compensation=True)
carry = depot.declare("carry", Parcel, str, compensation=True)
hand_over = depot.declare("hand_over", Parcel, str)


def delivery(deadline: float | None = None) -> Saga[Parcel, dict[str, object]]:
    saga = Saga("delivery", input=Parcel, deadline=deadline)
    saga.step(pack, retry=Retry(attempts=2, interval=60, jitter=0))
    saga.step(carry, deadline=3600)
    saga.step(hand_over, kind=PIVOT, retry=Retry(attempts=1))
    return saga


def carrying() -> Scenario[dict[str, object]]:
    return given(delivery(), Parcel("tea")).expect(pack).replies("P")


# Long work


def test_work_in_progress_is_asked_for_again() -> None:
    scenario = carrying().expect(carry).replies_later(poll=60)
    assert scenario.saga.step("carry").status is amends.StepStatus.WAITING
    scenario.after(59.9).expect_no_call().after(0.1).expect(carry).replies("C").expect(hand_over).replies("H")
    scenario.completes({"pack": "P", "carry": "C", "hand_over": "H"})


def test_a_poll_is_taken_as_a_server_takes_it() -> None:
    carrying().expect(carry).replies_later(poll=timedelta(milliseconds=1)).after(0.09).expect_no_call()
    with pytest.raises(ValueError, match="longer than nothing"):
        carrying().expect(carry).replies_later(poll=0)


def test_work_is_completed_by_somebody_else() -> None:
    scenario = carrying().expect(carry).replies_later()
    with pytest.raises(AssertionError, match=r"(?s)none now.*carry #1 is at work\n"):
        scenario.expect(hand_over)
    scenario.complete_step(carry, "C").complete_step("carry", "C").expect(hand_over).replies("H").completes()
    with pytest.raises(amends.FailedPrecondition) as late:
        scenario.complete_step(carry, "D")
    assert late.value.reason == "STEP_NOT_WAITING"


def test_work_is_refused_by_somebody_else() -> None:
    scenario = carrying().expect(carry).replies_later().refuse_step(carry, "LOST", "The van burnt.", data={"van": 7})
    scenario.expect_compensated([pack])
    problem = scenario.saga.step("carry").error
    assert problem is not None
    assert (problem.code, problem.participant, problem.data.read(dict)) == ("LOST", "depot", {"van": 7})


def test_work_that_broke_is_begun_again_and_undone_if_the_saga_turns_back() -> None:
    saga = Saga("delivery", input=Parcel)
    saga.step(pack)
    saga.step(carry, retry=Retry(attempts=2, interval=60, jitter=0))
    scenario = given(saga, Parcel("tea")).expect(pack).replies("P").expect(carry).replies_later()
    scenario.break_off_step(carry, "FLAT_TYRE", "The van stopped.", data={"van": 7}).expect_no_call()
    step = scenario.saga.step("carry")
    assert step.error is not None
    assert (step.error.code, step.error.participant, step.error.data.read(dict)) == ("FLAT_TYRE", "depot", {"van": 7})
    assert step.due_time == scenario.saga.due_time
    scenario.after(60).expect(carry).replies("C").completes()
    with pytest.raises(amends.FailedPrecondition, match="Nobody waits"):
        scenario.break_off_step("carry", "FLAT_TYRE")
    scenario = given(saga, Parcel("tea")).expect(pack).replies("P").expect(carry).replies_later()
    scenario.break_off_step(carry, "FLAT_TYRE").cancel().expect_compensated([carry, pack])


def test_a_wait_ends_with_the_deadline_of_its_step() -> None:
    carrying().expect(carry).replies_later().after(3600).expect_compensated([carry, pack])


def test_a_compensation_at_work_is_asked_again_by_its_policy() -> None:
    scenario = carrying().expect(carry).refuses("NO").expect_compensation(pack).replies_later()
    scenario.when_due().expect_compensation(pack).succeeds().compensated()


def test_what_nobody_waits_for_cannot_be_completed() -> None:
    with pytest.raises(amends.FailedPrecondition, match="in flight"):
        carrying().complete_step(carry, "C")
    with pytest.raises(amends.FailedPrecondition, match="or due"):  # after a restore, its call may be lost
        carrying().complete_step(hand_over, "H")
    with pytest.raises(amends.FailedPrecondition, match="Nobody waits"):
        carrying().refuse_step(pack, "NO")
    with pytest.raises(amends.NotFound) as unknown:
        carrying().refuse_step("fly", "NO")
    assert unknown.value.reason == "STEP_UNKNOWN"


class Studio:
    """A participant that answers later, and keeps what it takes to finish the work."""

    def __init__(self) -> None:
        self.participant = Participant("studio")
        self.calls: list[Call] = []

        async def paint(request: str, call: Call) -> str:
            self.calls.append(call)
            call.later()

        paint.__annotations__ = {"request": str, "call": Call, "return": str}
        self.paint = self.participant.action(paint)

    def saga(self) -> Saga[str, dict[str, object]]:
        saga = Saga("picture", input=str)
        saga.step(self.paint, kind=PIVOT)
        return saga


def test_a_handler_passes_its_completion_on() -> None:
    studio = Studio()
    scenario = given(studio.saga(), "a cat", participants=[studio.participant])
    with pytest.raises(AssertionError, match="to be COMPLETED"):
        scenario.completes()
    kept = amends.Completion.parse(str(studio.calls[0].completion))
    with pytest.raises(amends.PermissionDenied) as denied:
        given(studio.saga(), "a dog", participants=[studio.participant]).complete_step(kept, "picture")
    assert denied.value.reason == "TOKEN_INVALID"
    scenario.complete_step(kept, "picture").complete_step(studio.calls[0], "picture").completes({"paint": "picture"})


def test_a_check_has_nobody_who_completes_a_step() -> None:
    studio = Studio()
    with pytest.raises(AssertionError, match="Nobody completes a step here: have paint reply, or ask to be called"):
        check_every_failure(studio.saga(), "a cat", participants=[studio.participant], effects=lambda: 0)


def test_a_check_asks_a_handler_again_that_is_at_work() -> None:
    pictures: dict[str, int] = {}

    def paint(request: str, call: Call) -> str:
        pictures.setdefault(call.key, 0)
        if call.attempt == 1:
            call.later(poll=60)
        pictures[call.key] = 1
        return "a picture"

    paint.__annotations__ = {"request": str, "call": Call, "return": str}
    studio = Participant("studio")
    saga = Saga("picture", input=str)
    saga.step(studio.action(paint), kind=PIVOT)
    report = check_every_failure(saga, "x", participants=[studio], effects=lambda: sum(pictures.values()))
    assert report.ok, report
    assert len(report.runs) == 12


# Operators


def test_a_paused_saga_calls_nothing_until_it_is_resumed() -> None:
    scenario = given(delivery(), Parcel("tea"))
    packing = scenario.expect(pack)
    scenario.pause("stock-taking")
    assert scenario.saga.paused
    packing.replies("P").expect_no_call().after(86400).expect_no_call().resume().expect(carry).refuses("NO")
    scenario.expect_compensated([pack])
    with pytest.raises(amends.FailedPrecondition) as ended:
        scenario.pause()
    assert ended.value.reason == "SAGA_FINAL"


def test_a_call_that_should_not_be_made_is_seen() -> None:
    with pytest.raises(AssertionError, match="Expected that nothing is called, and carry is"):
        carrying().expect_no_call()


def test_a_waiting_retry_is_made_now() -> None:
    scenario = given(delivery(), Parcel("tea")).expect(pack).fails("no tape").expect_no_call()
    scenario.retry("there is tape").expect(pack).replies("P").cancel("enough").expect(carry).refuses("NO")
    scenario.expect_compensated([pack])
    with pytest.raises(amends.FailedPrecondition) as pointless:
        carrying().retry()
    assert pointless.value.reason == "NOTHING_TO_RETRY"


def test_a_stuck_saga_is_given_up() -> None:
    stuck = carrying().expect(carry).replies("C").expect(hand_over).fails("nobody there").stuck(hand_over)
    stuck.fail("the house is gone").failed()
    assert [event.kind for event in stuck.journal][-1] is amends.EventKind.SAGA_FAILED
    with pytest.raises(AssertionError, match=r"(?s)to be FAILED.*command: pause"):
        carrying().pause().failed()
    with pytest.raises(amends.FailedPrecondition) as sound:
        carrying().fail("no patience")
    assert sound.value.reason == "SAGA_NOT_STUCK"


def test_a_stuck_step_is_settled_by_an_operator() -> None:
    stuck = carrying().expect(carry).replies("C").expect(hand_over).fails("nobody there").stuck(hand_over)
    stuck.resolve("hand_over", amends.Resolution.SUCCEEDED, output="H", reason="it is there").completes(
        {"pack": "P", "carry": "C", "hand_over": "H"}
    )


# Starts


def test_a_start_says_what_a_client_may_say() -> None:
    orchestrator = Orchestrator()
    begin = orchestrator.now + timedelta(hours=1)
    scenario = orchestrator.start(
        delivery(), Parcel("tea"), id="d-1", labels={"town": "Bath"}, at=begin, deadline=timedelta(minutes=5)
    )
    assert (scenario.saga.status, scenario.saga.labels) == (amends.SagaStatus.PENDING, {"town": "Bath"})
    scenario.expect_no_call().after(3599).expect_no_call().after(1)
    scenario.expect(pack).replies("P").after(300).expect(carry).refuses("NO").expect_compensated([pack])
    assert scenario.saga.cause is not None
    assert scenario.saga.cause.deadline == begin + timedelta(minutes=5)


def test_handlers_see_the_labels() -> None:
    studio = Studio()
    given(studio.saga(), "a cat", participants=[studio.participant], labels={"for": "ada"}).after(0)
    assert studio.calls[0].labels == {"for": "ada"}


def test_a_deadline_of_a_start_goes_before_that_of_the_definition() -> None:
    given(delivery(deadline=10), Parcel("tea"), deadline=99).after(98).expect(pack).replies("P")


def test_a_start_that_is_repeated_gives_the_same_saga() -> None:
    orchestrator = Orchestrator()
    first = orchestrator.start(delivery(), Parcel("tea"), id="d-1").expect(pack).replies("P")
    again = orchestrator.start(delivery(), Parcel("tea"), id="d-1")
    assert again.journal == first.journal
    with pytest.raises(amends.AlreadyExists) as taken:
        orchestrator.start(delivery(), Parcel("coffee"), id="d-1")
    assert taken.value.reason == "SAGA_ALREADY_EXISTS"
    with pytest.raises(amends.AlreadyExists):
        orchestrator.start(delivery(deadline=5), Parcel("tea"), id="d-1")


def test_starts_that_no_server_would_take_are_refused_alike() -> None:
    orchestrator = Orchestrator()
    with pytest.raises(amends.InvalidArgument, match="labels"):
        orchestrator.start(delivery(), Parcel("tea"), labels={"": "x"})
    with pytest.raises(amends.DefinitionError, match="deadline"):
        orchestrator.start(delivery(), Parcel("tea"), deadline=-1)
    with pytest.raises(amends.InvalidArgument, match="saga_id"):
        orchestrator.start(delivery(), Parcel("tea"), id="x" * 1000)
    with pytest.raises(ValueError, match="time zone"):
        orchestrator.start(delivery(), Parcel("tea"), at=datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused
    assert orchestrator.start(delivery(), Parcel("tea")).saga.id == "delivery-1"


def test_an_input_that_does_not_meet_the_schema_is_refused() -> None:
    wrong = Parcel("tea", weight="heavy")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(amends.InvalidArgument) as refused:
        given(delivery(), wrong)
    assert [violation.field for violation in refused.value.violations] == ["input.weight"]
    assert re.search("schema of definition `delivery`", str(refused.value))
