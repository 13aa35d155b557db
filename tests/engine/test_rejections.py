"""Each rejection of a command says what can be done instead, in the state that the saga is in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amends_server.engine.commands import Cancel, Command, Complete, Fail, Pause, Refused, Rejected, Resolve, Retry
from amends_server.engine.decide import decide
from amends_server.engine.definition import Compensation
from amends_server.engine.events import Resolution
from amends_server.engine.history import EVENTS_MAX
from amends_server.engine.payload import Json
from amends_server.engine.policy import ENDLESS
from amends_server.engine.policy import Retry as RetryPolicy
from amends_server.engine.value import replace
from tests.advice import says_what_to_do
from tests.engine.build import NO, NO_JITTER, Run, compensatable, pivot, retriable
from tests.sources import ROOT, codes_in

SCHEMA = '{"type":"integer"}'


def begun() -> Run:
    return Run(compensatable("a"), pivot("k", "a"), retriable("r", "k"))


def at_pivot() -> Run:
    run = begun()
    run.done("a")
    return run


def stuck_at_pivot() -> Run:
    run = at_pivot()
    run.lost("k")
    return run


def trying_pivot() -> Run:
    run = Run(pivot("k", retry=RetryPolicy(attempts_max=ENDLESS)))
    run.lost("k")
    return run


def stuck_behind_pivot() -> Run:
    run = at_pivot()
    run.done("k")
    run.refused("r")
    return run


def stuck_back() -> Run:
    run = at_pivot()
    run.refused("k")
    run.undo_refused("a")
    return run


def undoing() -> Run:
    run = at_pivot()
    run.refused("k")
    return run


def undoing_again() -> Run:
    run = Run(compensatable("a", compensation=Compensation(retry=NO_JITTER)), pivot("k", "a"))
    run.done("a")
    run.refused("k")
    run.undo_lost("a")
    return run


def completed() -> Run:
    run = Run(compensatable("a"))
    run.done("a")
    return run


def compensated() -> Run:
    run = Run(compensatable("a"))
    run.refused("a")
    return run


def failed() -> Run:
    run = stuck_at_pivot()
    run.do(Fail("test", "op"))
    return run


def typed() -> Run:
    run = Run(compensatable("a"), pivot("k", "a", output_schema=SCHEMA))
    run.done("a")
    run.lost("k")
    return run


def full() -> Run:
    run = stuck_at_pivot()
    run.state = replace(run.state, sequence=10 * EVENTS_MAX)
    return run


def resolve(step: str, resolution: Resolution) -> Resolve:
    return Resolve(step, resolution, Json('"x"'), "test", "op")


CANCEL, FAIL, PAUSE, RETRY = Cancel("test", "op"), Fail("test", "op"), Pause("test", "op"), Retry("test", "op")
OVER = Complete("a", 1, Refused(NO))

REJECTIONS: list[tuple[Callable[[], Run], Command, str, str]] = [
    (completed, CANCEL, "SAGA_COMPLETED", "start another one that makes up for it"),
    (failed, CANCEL, "SAGA_FAILED", "look at its steps"),
    (at_pivot, CANCEL, "PIVOT_DISPATCHED", "wait until it has ended, and start another one"),
    (
        trying_pivot,
        CANCEL,
        "PIVOT_DISPATCHED",
        "that step `k` had no effect, resolve it as COMPENSATED with ResolveStep",
    ),
    (stuck_at_pivot, CANCEL, "PIVOT_DISPATCHED", "turns the saga back, or give the saga up with FailSaga"),
    (
        stuck_behind_pivot,
        CANCEL,
        "PIVOT_DISPATCHED",
        "resolve step `r` as SKIPPED or SUCCEEDED with ResolveStep, or give",
    ),
    (begun, RETRY, "NOTHING_TO_RETRY", "watch it, or cancel it"),
    (begun, FAIL, "SAGA_NOT_STUCK", "cancel it with CancelSaga"),
    (at_pivot, FAIL, "SAGA_NOT_STUCK", "wait until it has ended"),
    (trying_pivot, FAIL, "SAGA_NOT_STUCK", "resolve it as COMPENSATED with ResolveStep, which turns the saga back."),
    (undoing, FAIL, "SAGA_NOT_STUCK", "wait until it is COMPENSATED or STUCK"),
    (undoing_again, FAIL, "SAGA_NOT_STUCK", "resolve step `a` as COMPENSATED or SKIPPED with ResolveStep"),
    (begun, resolve("x", Resolution.SKIPPED), "STEP_UNKNOWN", "name one that its definition has"),
    (begun, Complete("x", 1, Refused(NO)), "STEP_UNKNOWN", "name one that its definition has"),
    (begun, resolve("a", Resolution.SKIPPED), "CALL_IN_FLIGHT", "wait for its outcome"),
    (begun, OVER, "CALL_IN_FLIGHT", "wait for its outcome"),
    (completed, OVER, "STEP_NOT_WAITING", "look at the saga"),
    (begun, resolve("r", Resolution.SKIPPED), "RESOLUTION_NOT_ALLOWED", "wait until a call of it waits or has failed"),
    (stuck_at_pivot, resolve("a", Resolution.SKIPPED), "RESOLUTION_NOT_ALLOWED", "resolve `k`, which can be now"),
    (stuck_back, resolve("k", Resolution.SKIPPED), "RESOLUTION_NOT_ALLOWED", "resolve `a`, which can be now"),
    (stuck_back, resolve("a", Resolution.SUCCEEDED), "RESOLUTION_NOT_ALLOWED", "allows now: COMPENSATED or SKIPPED."),
    (typed, resolve("k", Resolution.SUCCEEDED), "OUTPUT_REFUSED", "Give one that does"),
    (full, RETRY, "HISTORY_FULL", "resolve its steps"),
    (completed, PAUSE, "SAGA_FINAL", "start another one that makes up for it"),
    (compensated, PAUSE, "SAGA_FINAL", "start another one"),
    (failed, RETRY, "SAGA_FINAL", "look at its steps to see what is left"),
]


@pytest.mark.parametrize(("make", "command", "reason", "says"), REJECTIONS)
def test_a_rejection_says_what_to_do_instead(make: Callable[[], Run], command: Command, reason: str, says: str) -> None:
    run = make()
    with pytest.raises(Rejected) as rejected:
        decide(run.state, command, run.now)
    assert rejected.value.reason == reason
    assert says in str(rejected.value)
    assert says_what_to_do(str(rejected.value)), str(rejected.value)


def test_every_reason_is_among_them() -> None:
    reasons = {reason for _, reason in codes_in(ROOT / "server/amends_server", {"Rejected"})}
    assert reasons == {reason for _, _, reason, _ in REJECTIONS}
