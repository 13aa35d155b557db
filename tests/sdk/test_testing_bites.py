"""The check of every failure bites: whoever is wrong in one way is reported for that, and whoever is right is not."""

from __future__ import annotations

import pytest

import amends
from amends import Participant, Saga
from amends.testing import Fault, Report, Siblings, check_every_failure
from tests.sdk import tills

CALL, UNDO = False, True

shelf = Participant("shelf")
take = shelf.declare("take", str, compensation=True)
wrap = shelf.declare("wrap", str, compensation=True)

WRONG: dict[type[tills.Till], set[tuple[bool, Fault]]] = {
    tills.NotIdempotent: {
        (CALL, Fault.DUPLICATE),
        (CALL, Fault.REPLY_LOST),
        (CALL, Fault.REPLY_LOST_EACH_TIME),
        (CALL, Fault.CRASH_BEFORE_OUTCOME),
        (CALL, Fault.CRASH_TWICE),
        (CALL, Fault.LATE_DUPLICATE),
        (UNDO, Fault.CRASH_BOTH_WAYS),
    },
    tills.ForgetsTombstones: {(CALL, Fault.LATE), (CALL, Fault.LATE_DUPLICATE)},
    tills.CompensatesNothing: {
        *((CALL, fault) for fault in (Fault.REPLY_LOST_EACH_TIME, Fault.LATE_DUPLICATE)),
        *((UNDO, fault) for fault in Fault),
    },
    tills.TakesUnknownForUndone: {(CALL, Fault.REPLY_LOST_EACH_TIME), (CALL, Fault.LATE_DUPLICATE)},
    tills.TakesUnknownForFailed: {
        (CALL, Fault.REPLY_LOST),
        (CALL, Fault.CRASH_BEFORE_OUTCOME),
        (CALL, Fault.CRASH_TWICE),
        (UNDO, Fault.CRASH_BOTH_WAYS),
    },
    tills.UndoNotIdempotent: {
        (UNDO, Fault.DUPLICATE),
        (UNDO, Fault.REPLY_LOST),
        (UNDO, Fault.REPLY_LOST_EACH_TIME),
        (UNDO, Fault.CRASH_BEFORE_OUTCOME),
        (UNDO, Fault.CRASH_TWICE),
        (UNDO, Fault.CRASH_BOTH_WAYS),
        (UNDO, Fault.LATE),
        (UNDO, Fault.LATE_DUPLICATE),
    },
    tills.RefusesEmptyUndo: {(CALL, Fault.LOST_EACH_TIME), (CALL, Fault.LATE)},
}
"""Of each wrong till, by which faults of its own calls alone it has to be found out."""


def check(till: tills.Till | tills.BarrierTill, *, beside: bool = False) -> Report:
    """Check a sale that takes from a shelf, pays and wraps; pays beside taking if that is said."""
    saga = Saga("sale", input=str)
    if beside:
        with saga.parallel():
            saga.step(take)
            saga.step(till.action)
    else:
        saga.step(take)
        saga.step(till.action)
    saga.step(wrap)
    return check_every_failure(saga, "x", participants=[till.participant], effects=till.effects)


def found(report: Report, siblings: Siblings = Siblings.QUIET) -> set[tuple[bool, Fault]]:
    cases = [finding.case for finding in report.findings]
    return {(case.compensation, case.fault) for case in cases if (case.step, case.siblings) == ("pay", siblings)}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", [tills.Till, tills.AsyncTill, tills.BarrierTill])
def test_whoever_is_right_is_clean(kind: type[tills.Till | tills.BarrierTill], beside: bool) -> None:
    report = check(kind(), beside=beside)
    assert report.ok, report
    assert len(report.runs) == (179 if beside else 80)


@pytest.mark.parametrize("kind", WRONG)
def test_whoever_is_wrong_is_found_out_by_what_is_wrong(kind: type[tills.Till]) -> None:
    report = check(kind())
    assert found(report) == WRONG[kind], report


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("siblings", [Siblings.REPLYING, Siblings.CALLED])
def test_whoever_is_wrong_is_found_out_beside_others_too(kind: type[tills.Till], siblings: Siblings) -> None:
    report = check(kind(), beside=True)
    assert found(report, siblings) == {case for case in WRONG[kind] if case[1] is not Fault.CRASH_BEFORE_INTENT}, report


def test_effects_that_are_left_are_said_in_words() -> None:
    left = check(tills.CompensatesNothing()).findings
    assert {(each.status, each.effects, each.wanted) for each in left} == {
        (amends.SagaStatus.COMPENSATED, "handlers: 1", "nothing")
    }
    doubled = check(tills.NotIdempotent()).findings
    assert {each.effects for each in doubled} >= {"handlers: 2"}


def test_i14_an_undo_that_is_refused_leaves_the_saga_stuck() -> None:
    refused = check(tills.RefusesEmptyUndo()).findings
    assert {(each.status, each.wanted) for each in refused} == {(amends.SagaStatus.STUCK, "all or nothing")}
    assert all("NOTHING_TO_UNDO" in each.journal for each in refused)
