"""Where parallel branches, operators, pauses and deadlines meet: one short history each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amends.testing.simulation.observer import Observer
from amends_server.engine.commands import Cancel, Fail, Recover, Rejected, Settle, Succeeded, Unknown, Wake
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import Compensation, ErrorRule, OnCompensationFailure, OnError
from amends_server.engine.due import due, order_call
from amends_server.engine.events import DeadlinePassed, Resolution, StepFailed
from amends_server.engine.state import SagaStatus, StepStatus
from tests.engine.build import (
    NO_JITTER,
    ONCE,
    START,
    TIMEOUT,
    Run,
    compensatable,
    define,
    graph_of,
    names,
    pivot,
    retriable,
    started,
)

CONTINUE = OnCompensationFailure.CONTINUE
LEADS_NOWHERE = '"${input.missing}"'
BAD_ARGUMENTS = Compensation(template=LEADS_NOWHERE, retry=ONCE)


def test_a_retried_rollback_keeps_its_order() -> None:
    """I5: steps that all failed to be undone are undone from the last to the first, not all at once."""
    run = Run(compensatable("a"), compensatable("b", "a"), compensatable("c", "b"), on_compensation_failure=CONTINUE)
    run.done("a")
    run.done("b")
    run.refused("c")
    run.undo_refused("b")
    run.undo_refused("a")
    assert run.state.status is SagaStatus.STUCK
    run.retry()
    assert run.open_calls() == {"C(b)"}
    run.undone("b")
    assert run.open_calls() == {"C(a)"}
    run.undone("a")
    assert run.state.status is SagaStatus.COMPENSATED


def test_a_rollback_retried_while_paused_goes_on_when_resumed() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"))
    run.done("a")
    run.refused("b")
    run.undo_refused("a")
    run.pause()
    run.retry()
    assert due(run.state).calls == ()
    assert due(run.state).next_time is None
    run.do(Recover())
    run.resume()
    run.undone("a")
    assert run.state.status is SagaStatus.COMPENSATED


def test_continue_goes_past_a_compensation_whose_arguments_cannot_be_made() -> None:
    run = Run(
        compensatable("a"),
        compensatable("b", "a", compensation=BAD_ARGUMENTS),
        compensatable("c", "b"),
        on_compensation_failure=CONTINUE,
    )
    run.done("a")
    run.done("b")
    run.refused("c")
    assert run.open_calls() == {"C(a)"}
    run.undone("a")
    assert run.state.stuck is not None
    assert run.state.stuck.steps == ("b",)


def test_halt_stops_at_a_compensation_whose_arguments_cannot_be_made() -> None:
    run = Run(compensatable("a"), compensatable("b", "a", compensation=BAD_ARGUMENTS), compensatable("c", "b"))
    run.done("a")
    run.done("b")
    run.refused("c")
    assert run.open_calls() == set()
    assert run.state.status is SagaStatus.STUCK


def test_a_step_skipped_on_the_way_forward_still_halts_the_way_back() -> None:
    """An operator who lets a step be has said nothing of its compensation."""
    run = Run(compensatable("a"), compensatable("b", "a", retry=NO_JITTER), compensatable("c", "b"))
    run.done("a")
    run.lost("b")
    run.resolve("b", Resolution.SKIPPED)
    run.refused("c")
    assert run.open_calls() == {"C(b)"}
    run.undo_refused("b")
    assert run.open_calls() == set()
    assert run.state.status is SagaStatus.STUCK
    run.resolve("b", Resolution.SKIPPED)
    assert run.open_calls() == {"C(a)"}


def test_a_skipped_pivot_does_not_open_the_way_back() -> None:
    """I7: what was unknown of the pivot is unknown still, so the saga only goes forward."""
    run = Run(compensatable("a"), pivot("p", "a"), retriable("r", "p"), deadline_us=100)
    run.done("a")
    run.lost("p")
    run.pause()
    run.resolve("p", Resolution.SKIPPED)
    with pytest.raises(Rejected, match="only goes forward"):
        run.do(Cancel("test", "op"))
    run.do(Wake(), after_us=1000)
    assert not run.state.going_back
    run.resume()
    assert run.open_calls() == {"A(r)"}


def test_nothing_is_dispatched_in_the_decision_that_turns_back() -> None:
    """I3: a retry that is due while the next step's input cannot be made is not sent any more."""
    run = Run(
        compensatable("a", retry=NO_JITTER),
        compensatable("b"),
        compensatable("c", "b", input_template=LEADS_NOWHERE),
    )
    run.lost("a")
    run.pause()
    run.done("b")
    run.now += 1_000
    run.resume()
    assert run.state.going_back
    assert "StepDispatched" not in names(run.last)


def test_no_step_is_dispatched_after_the_deadline_though_nobody_woke_the_saga() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"), deadline_us=100)
    run.settle("a", Succeeded(), after_us=100)
    assert run.state.cause == DeadlinePassed(START + 100)
    assert "StepDispatched" not in names(run.last)
    assert run.open_calls() == {"C(a)"}


def test_the_last_step_completes_a_saga_that_nobody_woke_at_its_deadline() -> None:
    run = Run(compensatable("a"), deadline_us=100)
    run.settle("a", Succeeded(), after_us=200)
    assert run.state.status is SagaStatus.COMPLETED


def test_a_retry_that_comes_after_the_steps_deadline_is_not_made() -> None:
    run = Run(compensatable("a", retry=NO_JITTER, deadline_us=150))
    run.lost("a")
    run.do(Wake(), after_us=1_000)
    assert run.state.step("a").action.attempts == 1
    assert run.state.step("a").status is StepStatus.COMPENSATING
    assert run.state.cause == StepFailed("a", TIMEOUT)


def test_an_expired_step_does_not_let_others_be_dispatched_in_the_same_decision() -> None:
    run = Run(compensatable("a", retry=NO_JITTER), compensatable("b", retry=NO_JITTER, deadline_us=150))
    run.lost("a")
    run.lost("b")
    run.do(Wake(), after_us=1_000)
    assert run.state.going_back
    assert "StepDispatched" not in names(run.last)


def test_an_operators_retry_gives_the_step_its_time_anew() -> None:
    """Else the attempt would get what is left of a deadline that has passed: nothing."""
    run = Run(compensatable("a"), pivot("p", "a", retry=NO_JITTER, deadline_us=1_000))
    run.done("a")
    run.lost("p", again=False)
    assert run.state.status is SagaStatus.STUCK
    run.now += 10_000
    run.retry()
    assert order_call(run.state, due(run.state).calls[0]).deadline == run.now + 1_000
    run.lost("p")
    assert run.state.step("p").action.due_time is not None
    run.do(Wake(), after_us=999)
    assert run.state.step("p").status is StepStatus.UNKNOWN


def test_every_attempt_must_be_over_by_the_same_deadline() -> None:
    run = Run(compensatable("a", retry=NO_JITTER, deadline_us=150, timeout_us=120))
    assert order_call(run.state, due(run.state).calls[0]).timeout_us == 120
    run.lost("a")
    run.do(Wake(), after_us=100)
    assert order_call(run.state, due(run.state).calls[0]).deadline == START + 150


def test_a_sibling_that_waits_for_a_retry_is_given_up_and_compensated() -> None:
    run = Run(compensatable("a", retry=NO_JITTER), compensatable("b"))
    run.lost("a")
    run.refused("b")
    assert run.state.step("a").action.due_time is None
    assert run.open_calls() == {"C(a)"}
    run.undone("a")
    assert run.state.status is SagaStatus.COMPENSATED
    assert run.state.step("b").status is StepStatus.FAILED


def test_a_sibling_in_flight_is_quiesced_before_it_is_compensated() -> None:
    run = Run(compensatable("a"), compensatable("b"), compensatable("c", "a", "b"))
    run.refused("b")
    assert run.open_calls() == {"A(a)"}
    run.done("a")
    assert run.open_calls() == {"C(a)"}


def test_halt_begins_no_other_branch_and_waits_for_what_is_in_flight() -> None:
    run = Run(
        *(compensatable(name) for name in ("a", "b")),
        compensatable("a2", "a"),
        compensatable("b2", "b"),
        compensatable("end", "a2", "b2"),
    )
    for name in ("a", "b", "a2", "b2"):
        run.done(name)
    run.refused("end")
    assert run.open_calls() == {"C(a2)", "C(b2)"}
    run.undo_refused("a2")
    run.undone("b2")
    assert run.open_calls() == set()
    assert run.state.stuck is not None
    assert run.state.stuck.steps == ("a2",)
    run.retry()
    assert run.open_calls() == {"C(a2)", "C(b)"}


def test_a_paused_saga_meets_its_deadline_and_undoes_nothing_until_resumed() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"), deadline_us=100)
    run.pause()
    run.done("a")
    assert due(run.state).next_time == START + 100
    run.do(Wake(), after_us=99)
    assert run.state.cause == DeadlinePassed(START + 100)
    assert run.open_calls() == set()
    run.resume()
    assert run.open_calls() == {"C(a)"}


def test_a_deadline_that_passed_while_down_is_met_on_recovery() -> None:
    run = Run(compensatable("a", retry=NO_JITTER), compensatable("b", "a"), deadline_us=100)
    run.do(Recover(), after_us=1_000)
    assert run.state.cause == DeadlinePassed(START + 100)
    assert run.open_calls() == {"C(a)"}


def test_recovery_of_a_stuck_saga_does_nothing() -> None:
    run = Run(compensatable("a"), pivot("p", "a"))
    run.done("a")
    run.lost("p")
    assert run.do(Recover(), after_us=1_000) == []
    assert run.do(Wake(), after_us=1_000) == []


def test_a_saga_that_is_stuck_on_its_way_back_is_so_after_a_restore_and_may_be_given_up() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"))
    run.done("a")
    run.refused("b")
    run.undo_refused("a")
    run.do(Recover(restored=True))
    assert run.state.status is SagaStatus.STUCK
    run.do(Fail("test", "op"))
    assert run.state.status is SagaStatus.FAILED
    observer = Observer(run.graph)
    for event in run.journal:  # nor does the observer of simulated worlds object
        observer.decision([event])


def test_recovery_of_a_paused_saga_sends_nothing_until_resumed() -> None:
    run = Run(compensatable("a", retry=NO_JITTER))
    run.pause()
    run.do(Recover())
    assert run.open_calls() == set()
    assert due(run.state).next_time is None
    run.resume()
    assert run.state.step("a").action.attempts == 2


def test_a_dead_end_that_an_operator_left_is_found_again() -> None:
    """Two retriable steps are refused; settling one leaves the saga stuck on the other."""
    run = Run(retriable("a"), retriable("b"))
    run.refused("a")
    run.refused("b")
    run.resolve("a", Resolution.SUCCEEDED)
    assert run.state.stuck is not None
    assert run.state.stuck.steps == ("b",)
    run.resolve("b", Resolution.SKIPPED)
    assert run.state.status is SagaStatus.COMPLETED


def test_i8_what_an_operator_calls_succeeded_is_undone_though_its_participant_had_refused_it() -> None:
    again = (ErrorRule(then=OnError.RETRY),)
    run = Run(compensatable("a", retry=NO_JITTER, on_error=again), compensatable("b", "a"))
    run.refused("a")
    run.resolve("a", Resolution.SUCCEEDED)
    run.refused("b")
    assert run.open_calls() == {"C(a)"}
    run.undone("a")
    assert run.state.status is SagaStatus.COMPENSATED


def test_commands_that_a_state_does_not_allow_are_rejected_with_a_reason() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"))
    for command, reason in (
        (run.retry, "NOTHING_TO_RETRY"),
        (lambda: run.do(Fail("test", "op")), "SAGA_NOT_STUCK"),
        (lambda: run.resolve("a", Resolution.SKIPPED), "CALL_IN_FLIGHT"),
        (lambda: run.resolve("b", Resolution.SKIPPED), "RESOLUTION_NOT_ALLOWED"),
        (lambda: run.resolve("x", Resolution.SKIPPED), "STEP_UNKNOWN"),
    ):
        with pytest.raises(Rejected) as rejected:
            command()
        assert rejected.value.reason == reason
    run.done("a")
    run.done("b")
    for command, reason in ((run.cancel, "SAGA_COMPLETED"), (run.pause, "SAGA_FINAL"), (run.retry, "SAGA_FINAL")):
        with pytest.raises(Rejected) as rejected:
            command()
        assert rejected.value.reason == reason


def test_replies_after_the_end_leave_no_event() -> None:
    run = Run(compensatable("a"))
    run.done("a")
    assert run.do(Settle("a", False, 1, Unknown(TIMEOUT))) == []
    assert run.do(Recover()) == []
    assert run.do(Wake()) == []


def test_a_deadline_is_not_met_early() -> None:
    run = Run(compensatable("a"), deadline_us=100)
    assert run.do(Wake(), after_us=99) == []
    run.do(Wake(), after_us=1)
    assert run.state.cause == DeadlinePassed(START + 100)
    assert run.do(Wake(), after_us=1) == []


def test_a_clock_that_jumps_back_behind_the_start_time_holds_up_nothing_that_has_begun() -> None:
    graph = graph_of(define(compensatable("a"), compensatable("b", "a")))
    _, state = start(graph, replace(started(graph), start_time=START + 100))
    _, state = decide(state, Wake(), START + 100)
    events, _ = decide(state, Settle("a", False, 1, Succeeded()), START + 50)
    assert names(events) == ["StepSucceeded", "StepDispatched"]


def test_an_action_that_ends_unknown_on_the_way_back_is_not_made_again() -> None:
    run = Run(compensatable("a", retry=NO_JITTER), compensatable("b"))
    run.refused("b")
    run.lost("a")
    assert run.state.step("a").action.due_time is None
    assert run.open_calls() == {"C(a)"}


def test_halt_passes_over_nothing_before_the_failed_compensation() -> None:
    nothing = Compensation(not_needed=True)
    run = Run(compensatable("a", compensation=nothing), compensatable("b", "a"), compensatable("c", "b"))
    run.done("a")
    run.done("b")
    run.refused("c")
    run.undo_refused("b")
    assert "CompensationOmitted" not in names(run.journal)
    run.retry()
    run.undone("b")
    assert names(run.last) == ["CompensationSucceeded", "CompensationOmitted", "SagaCompensated"]


@pytest.mark.parametrize("count", [50, 500])
def test_10_many_steps_in_order_and_in_parallel(count: int) -> None:
    parallel = Run(*(compensatable(f"s{i}") for i in range(count)))
    in_order = Run(compensatable("s0"), *(compensatable(f"s{i}", f"s{i - 1}") for i in range(1, count)))
    assert len(parallel.open_calls()) == count
    for i in range(count):
        assert in_order.open_calls() == {f"A(s{i})"}
        for run in (parallel, in_order):
            _, run.state = decide(run.state, Settle(f"s{i}", False, 1, Succeeded()), run.now)
    assert parallel.state.status is in_order.state.status is SagaStatus.COMPLETED
