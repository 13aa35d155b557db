"""For how long a call is put off for which there is no room: by how long that goes on, and not by how long it works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amends_server.engine.commands import InProgress, NotSent, Settle, Unknown, Verdict, Wake
from amends_server.engine.definition import Compensation
from amends_server.engine.payload import Error
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry
from amends_server.engine.state import CallState
from tests.engine.build import TIMEOUT, Run, compensatable

HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
ASKED_US = 5 * SECOND_US
NO_ROOM = NotSent(Error("NOT_SENT", "Too many sagas wait."), ASKED_US)
FOREVER = Retry(attempts_max=ENDLESS, interval_us=HOUR_US, interval_max_us=HOUR_US, jitter=0)
PAUSE_PARTS = 100
"""A question or a retry without end waits for this part of the time that its call has taken."""


def settle(run: Run, verdict: Verdict, *, undo: bool = False, after_us: int = SECOND_US) -> int:
    """Answer the attempt that is open, have the next one made when it is due, and return when that was, from then."""
    call = call_of(run, undo=undo)
    run.do(Settle("a", undo, call.attempts, verdict), after_us)
    due_time = call_of(run, undo=undo).due_time
    assert due_time is not None
    delay_us = due_time - run.now
    run.do(Wake(), delay_us)
    assert call_of(run, undo=undo).open
    return delay_us


def call_of(run: Run, *, undo: bool) -> CallState:
    step = run.state.step("a")
    return step.compensation if undo else step.action


def compensating() -> Run:
    """A saga that has turned back, and whose compensation is tried for ever."""
    run = Run(compensatable("a", compensation=Compensation(retry=FOREVER)), compensatable("b", "a"))
    run.done("a")
    run.refused("b")
    return run


@pytest.mark.parametrize(
    ("begin", "verdict", "undo"),
    [
        (lambda: Run(compensatable("a")), InProgress(HOUR_US), False),
        (lambda: Run(compensatable("a", retry=FOREVER)), Unknown(TIMEOUT), False),
        (compensating, Unknown(TIMEOUT), True),
    ],
    ids=["work in progress", "an action that is tried for ever", "a compensation that is tried for ever"],
)
def test_what_has_gone_on_for_days_is_put_off_no_longer_than_it_pauses_by_itself(
    begin: Callable[[], Run], verdict: Verdict, undo: bool
) -> None:
    run = begin()
    began = run.now
    while run.now - began < 3 * DAY_US:
        settle(run, verdict, undo=undo)
    for _ in range(2):  # what was answered in between ends it
        assert settle(run, NO_ROOM, undo=undo) <= (run.now - began) // PAUSE_PARTS
        settle(run, verdict, undo=undo)


def test_what_is_put_off_for_a_day_leaves_few_events_and_comes_back_within_a_tenth_of_it() -> None:
    run = Run(compensatable("a"))
    began, sequence = run.now, run.state.sequence
    while run.now - began < DAY_US:
        before = run.now
        delay_us = settle(run, NO_ROOM)
        assert ASKED_US <= delay_us <= max(ASKED_US, (before + SECOND_US - began) // 10)
    assert run.state.sequence - sequence < 200


@pytest.mark.parametrize("undo", [False, True])
def test_a_pause_is_no_time_in_which_a_call_was_put_off(undo: bool) -> None:
    run = compensating() if undo else Run(compensatable("a"))
    run.do(Settle("a", undo, 1, NO_ROOM))
    run.pause()
    run.now += 3 * DAY_US
    run.resume()
    run.do(Wake(), ASKED_US)
    assert settle(run, NO_ROOM, undo=undo) == ASKED_US
