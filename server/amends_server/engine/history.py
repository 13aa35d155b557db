"""How long the history of a saga may become. Each load folds all of it, so nothing adds to it for ever.

Every step has a few events of its own, and then there are repetitions: attempts, questions to a participant that is at
work, repairs by operators. Where they could go on without end they become rare with time, and at a number of events
they end, going forward first: what is left of a saga then, its way back and its repair, has room that was kept for it.
"""

from __future__ import annotations

from amends_server.engine.payload import Error
from amends_server.engine.policy import ENDLESS, Retry, Time
from amends_server.engine.state import CallState, State

EVENTS_MAX = 10_000
"""Going forward: then no attempt is repeated. So many are read and folded in about a tenth of a second; retries and
questions that become rare reach it after years."""

EVENTS_PER_STEP_MAX = 8
"""Added to it for each step: what a step has in a saga that goes all the way forward and all the way back."""

ROOM_BACK = 2_000
"""Kept for the way back: then no attempt of a compensation is repeated."""

ROOM_BACK_PER_STEP = 24
"""Added to it for each step: its first attempt, and ten of its compensation, as the default policy has them."""

ROOM_REPAIRS = 2_000
"""Kept for operators, who give each call one more attempt: then a saga is neither retried nor paused any more. What is
left, resolving each step once and giving the saga up, has an end of its own."""

PAUSES_MAX = 100
"""What goes on without end pauses for at least this part of the time that it has taken, 1/PAUSES_MAX: nobody notices,
and a question each second, or a retry each half minute, makes less than 3,000 events in a year."""

PUT_OFF_PARTS = 10
"""An attempt that is put off, because too many sagas wait for its participant, is so for at least this part of the time
that this goes on, 1/PUT_OFF_PARTS: a participant that hangs for a day leaves some 200 events in each saga, and
one that has come back is called by all within a tenth of the time that it was away."""


def is_full(state: State) -> bool:
    """Tell whether no attempt may be repeated any more, in the direction in which the saga goes."""
    return state.sequence >= (_back_max(state) if state.going_back else _forward_max(state))


def takes_late_replies(state: State) -> bool:
    """Tell whether there is room for what changes nothing."""
    return state.sequence < _forward_max(state)


def takes_repairs(state: State) -> bool:
    """Tell whether operators may still have a saga do again what it has done."""
    return state.sequence < _back_max(state) + ROOM_REPAIRS


def full_error(state: State, last: Error) -> Error:
    """Return why an attempt was the last one. `last` is how it ended."""
    message = (
        f"The history of the saga has {state.sequence} events, and after so many no attempt is repeated. The last one"
        f" ended with {last.code}: {last.message}"
    )
    return Error("HISTORY_FULL", message, last.participant, last.data)


def retry_delay_us(retry: Retry, key: str, call: CallState, now: Time, counted: int) -> int:
    """Return the time from the end of a call's attempt to the next one by its policy, for which so many count."""
    least_us = _least_pause_us(call, now) if retry.attempts_max == ENDLESS else 0
    return retry.delay_us(key, call.attempts, counted, least_us)


def poll_delay_us(interval_us: int, call: CallState, now: Time) -> int:
    """Return the time until a participant that is at work is asked again. `interval_us` is what it asked for."""
    return max(interval_us, _least_pause_us(call, now))


def put_off_us(delay_us: int, call: CallState, now: Time) -> int:
    """Return for how long an attempt that was not sent is put off; `delay_us` is what was asked for."""
    if not delay_us:
        return 0
    gone_on_us = 0 if call.put_off_time is None else max(0, now - call.put_off_time)
    return max(delay_us, gone_on_us // PUT_OFF_PARTS, _least_pause_us(call, now))


def _least_pause_us(call: CallState, now: Time) -> int:
    since = call.forgiven_time or call.start_time
    return 0 if since is None else max(0, now - since) // PAUSES_MAX


def _forward_max(state: State) -> int:
    return EVENTS_MAX + EVENTS_PER_STEP_MAX * len(state.steps)


def _back_max(state: State) -> int:
    return _forward_max(state) + ROOM_BACK + ROOM_BACK_PER_STEP * len(state.steps)
