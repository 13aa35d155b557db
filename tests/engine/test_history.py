"""The history of a saga has an end, whatever repeats itself: it is never silent, and nothing that was done is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from amends_server.engine import history
from amends_server.engine.commands import (
    Complete,
    Fail,
    InProgress,
    NotSent,
    Recover,
    Refused,
    Rejected,
    Resolve,
    Settle,
    Succeeded,
    Unknown,
    Verdict,
    Wake,
)
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import Compensation, ErrorRule, OnError
from amends_server.engine.due import due
from amends_server.engine.events import LateReplyRecorded, Resolution, StepFailed
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry
from amends_server.engine.state import SagaStatus, StepStatus
from tests.engine.build import NO, TIMEOUT, Run, compensatable, define, graph_of, names, pivot, retriable, started

FOREVER = Retry(attempts_max=ENDLESS, interval_us=SECOND_US, interval_max_us=30 * SECOND_US, jitter=0)
YEAR_US = 365 * 24 * 3600 * SECOND_US
FORWARD, BACK, REPAIRS = 12, 12, 12


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of a dozen events in each direction."""
    for limit, value in {
        "EVENTS_MAX": FORWARD,
        "EVENTS_PER_STEP_MAX": 0,
        "ROOM_BACK": BACK,
        "ROOM_BACK_PER_STEP": 0,
        "ROOM_REPAIRS": REPAIRS,
    }.items():
        monkeypatch.setattr(history, limit, value)


def keep_on(run: Run, step: str, verdict: Verdict, *, undo: bool = False) -> None:
    """Answer each attempt of a call the same way, until there is none."""
    for _ in range(100):
        state = run.state.step(step)
        call = state.compensation if undo else state.action
        if call.open:
            run.do(Settle(step, undo, call.attempts, verdict), 1)
        elif call.due_time is not None:
            run.do(Wake(), max(0, call.due_time - run.now))
        else:
            return
    raise AssertionError("it went on and on")


def until_rejected(*acts: Callable[[], object]) -> str:
    """Do these in turn until one is rejected, and return why."""
    for _ in range(100):
        for act in acts:
            try:
                act()
            except Rejected as rejected:
                return rejected.reason
    raise AssertionError("it went on and on")


REPEATED: dict[str, Verdict] = {
    "no verdict": Unknown(TIMEOUT),
    "in progress": InProgress(1),
    "not sent": NotSent(TIMEOUT),
    "refused": Refused(NO),
}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("what", REPEATED)
def test_a_saga_turns_back_when_its_history_is_full(what: str) -> None:
    again = (ErrorRule(then=OnError.RETRY),)
    run = Run(compensatable("a"), compensatable("b", "a", retry=FOREVER, on_error=again))
    run.done("a")
    keep_on(run, "b", REPEATED[what])
    cause = run.state.cause
    assert isinstance(cause, StepFailed)
    assert cause.error.code == "HISTORY_FULL"
    last = {"in progress": "IN_PROGRESS", "refused": "NO"}.get(what, "TIMEOUT")
    assert f"ended with {last}" in cause.error.message
    for step in ("b", "a"):  # nothing that may have been done is forgotten
        if run.state.step(step).compensation.open:
            run.undone(step)
    assert run.state.status is SagaStatus.COMPENSATED
    assert len(run.journal) >= FORWARD
    undone = [event.step for event in run.journal if type(event).__name__ == "CompensationSucceeded"]
    assert undone == (["a"] if what in ("not sent", "refused") else ["b", "a"])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("step", [pivot("a", retry=FOREVER), retriable("a", retry=FOREVER)], ids=["pivot", "retriable"])
@pytest.mark.parametrize("what", ["no verdict", "in progress"])
def test_where_it_cannot_turn_back_it_is_stuck_and_can_be_repaired(what: str, step: object) -> None:
    run = Run(step)  # type: ignore[arg-type]
    keep_on(run, "a", REPEATED[what])
    assert run.state.status is SagaStatus.STUCK
    assert run.state.cause is None
    error = run.state.step("a").action.error
    assert error is not None
    assert error.code == "HISTORY_FULL"
    attempts = run.state.step("a").action.attempts
    run.retry()
    assert run.open_calls() == {"A(a)"}
    run.settle("a", REPEATED[what])  # one more attempt, and no more of it
    assert (run.state.status, run.state.step("a").action.attempts) == (SagaStatus.STUCK, attempts + 1)
    run.retry()
    run.done("a")
    assert run.state.status is SagaStatus.COMPLETED


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("what", ["no verdict", "in progress", "not sent"])
def test_a_compensation_has_room_of_its_own_and_ends_as_failed(what: str) -> None:
    run = Run(compensatable("a", compensation=Compensation(retry=FOREVER)), compensatable("b", "a", retry=FOREVER))
    run.done("a")
    keep_on(run, "b", Unknown(TIMEOUT))
    full = len(run.journal)
    run.undone("b")
    keep_on(run, "a", REPEATED[what], undo=True)
    step = run.state.step("a")
    assert (run.state.status, step.status) == (SagaStatus.STUCK, StepStatus.COMPENSATION_FAILED)
    assert step.compensation.error is not None
    assert step.compensation.error.code == "HISTORY_FULL"
    assert step.compensation.attempts >= 3
    assert full + 6 < len(run.journal) <= FORWARD + BACK + 4
    run.retry()
    run.undone("a")
    assert run.state.status is SagaStatus.COMPENSATED


@pytest.mark.usefixtures("short")
def test_a_step_that_was_not_begun_gets_its_first_attempt() -> None:
    """Only repetitions end: a saga with room for nothing else still goes all the way."""
    run = Run(retriable("a", retry=FOREVER), retriable("b", "a", retry=FOREVER))
    keep_on(run, "a", Unknown(TIMEOUT))
    run.do(Resolve("a", Resolution.SUCCEEDED, None, "seen", "op"))
    run.done("b")
    assert run.state.status is SagaStatus.COMPLETED


@pytest.mark.usefixtures("short")
def test_repairs_have_an_end_too_and_the_saga_can_still_be_ended() -> None:
    run = Run(compensatable("a", compensation=Compensation(retry=FOREVER)), compensatable("b", "a"))
    run.done("a")
    run.refused("b")
    keep_on(run, "a", Unknown(TIMEOUT), undo=True)
    assert until_rejected(run.retry, lambda: run.undo_lost("a")) == "HISTORY_FULL"
    with pytest.raises(Rejected, match="resolve its steps, or give it up"):
        run.pause()
    run.do(Resolve("a", Resolution.SKIPPED, None, "later", "op"))
    with pytest.raises(Rejected, match="that it allows now: COMPENSATED"):
        run.do(Resolve("a", Resolution.SKIPPED, None, "again", "op"))
    assert run.state.status is SagaStatus.STUCK
    assert len(run.journal) < FORWARD + BACK + REPAIRS + 10
    resolved = decide(run.state, Resolve("a", Resolution.COMPENSATED, None, "by hand", "op"), run.now).state
    given_up = decide(run.state, Fail("enough", "op"), run.now).state
    assert (resolved.status, given_up.status) == (SagaStatus.COMPENSATED, SagaStatus.FAILED)


@pytest.mark.usefixtures("short")
def test_pausing_has_an_end_and_what_is_paused_can_be_resumed() -> None:
    run = Run(compensatable("a", retry=FOREVER))
    reason = until_rejected(run.pause, run.resume)
    assert reason == "HISTORY_FULL"
    assert not run.state.paused
    run.done("a")
    assert run.state.status is SagaStatus.COMPLETED


@pytest.mark.usefixtures("short")
def test_crashes_without_end_do_not_grow_a_history_without_end() -> None:
    run = Run(pivot("a", retry=FOREVER))
    for _ in range(100):
        run.do(Recover())
    assert run.state.status is SagaStatus.STUCK
    assert len(run.journal) < FORWARD + 5


def words() -> Iterator[tuple[str, Callable[[int], Settle | Complete]]]:
    for verdict in (Succeeded(), Refused(NO), Unknown(TIMEOUT), InProgress(1)):
        yield type(verdict).__name__, lambda attempt, verdict=verdict: Settle("a", False, attempt, verdict)
    yield "Complete", lambda attempt: Complete("a", attempt, Refused(NO))


@pytest.mark.parametrize(("name", "reply"), list(words()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_late_reply_is_recorded_once(name: str, reply: Callable[[int], Settle | Complete]) -> None:
    run = Run(compensatable("a", retry=Retry(attempts_max=2, interval_us=1)), compensatable("b", "a"))
    run.lost("a")
    run.do(Wake(), 1)
    run.done("a")
    assert names(run.do(reply(1))) == ["LateReplyRecorded"]
    for _ in range(3):
        if name == "Complete":
            with pytest.raises(Rejected) as rejected:
                run.do(reply(1))
            assert rejected.value.reason == "STEP_NOT_WAITING"
        else:
            assert run.do(reply(1)) == []
    assert names(run.do(reply(2))) == ["LateReplyRecorded"]
    assert sum(isinstance(event, LateReplyRecorded) for event in run.journal) == 2


@pytest.mark.usefixtures("short")
def test_late_replies_take_no_room_that_is_kept() -> None:
    run = Run(retriable("a", retry=FOREVER))
    keep_on(run, "a", Unknown(TIMEOUT))
    assert run.do(Settle("a", False, 1, Succeeded())) == []
    with pytest.raises(Rejected, match="look at the saga"):
        run.do(Complete("a", 1, Succeeded()))


@pytest.mark.parametrize("verdict", [Unknown(TIMEOUT), InProgress(SECOND_US)], ids=["retries", "questions"])
def test_what_goes_on_for_a_year_has_a_few_thousand_events(verdict: Verdict) -> None:
    graph = graph_of(define(retriable("a", retry=FOREVER)))
    first = started(graph)
    journal, state = start(graph, first)
    now, count, early = first.time, len(journal), 0
    while now < first.time + YEAR_US:
        events, state = decide(state, Settle("a", False, state.step("a").action.attempts, verdict), now)
        next_time = due(state).next_time
        assert next_time is not None
        assert next_time - now <= max(30 * SECOND_US, (now - first.time) // 100)
        early += next_time - now <= SECOND_US
        now, count = next_time, count + len(events) + 1
        state = decide(state, Wake(), now).state
    assert state.sequence == count < 3_000
    assert state.status is SagaStatus.RUNNING
    assert early >= (100 if isinstance(verdict, InProgress) else 1), "at first it is as often as was asked for"


def test_an_operator_gives_a_call_its_short_pauses_anew() -> None:
    run = Run(retriable("a", retry=replace(FOREVER, attempts_max=2)))
    run.lost("a")
    run.do(Wake(), 1_000 * SECOND_US)
    run.lost("a")
    run.now += 1_000 * SECOND_US
    run.retry()
    run.settle("a", InProgress(SECOND_US), after_us=0)
    assert due(run.state).next_time == run.now + SECOND_US


def test_the_default_policies_find_their_room() -> None:
    """Thousands of steps with three attempts each way are far from the limits."""
    assert history.EVENTS_PER_STEP_MAX >= 2 * 3
    assert history.ROOM_BACK_PER_STEP >= 2 * 10 + 4
