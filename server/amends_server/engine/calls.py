"""How an event moves one call of a step: its attempts begin, end, are waited for, and count or are forgiven."""

from __future__ import annotations

from amends_server.engine.events import (
    ActionEvent,
    AttemptWithdrawn,
    CompensationDispatched,
    CompensationEvent,
    CompensationFailed,
    CompensationRetryScheduled,
    CompensationSucceeded,
    StepDeferred,
    StepDispatched,
    StepGivenUp,
    StepOutputRefused,
    StepRefused,
    StepRetryScheduled,
    StepSucceeded,
)
from amends_server.engine.payload import Error
from amends_server.engine.policy import Time
from amends_server.engine.state import CallState
from amends_server.engine.value import replace


def dispatch(call: CallState, event: StepDispatched | CompensationDispatched) -> CallState:
    assert not call.open, f"{event!r} while another attempt is open"
    assert event.attempt == call.attempts + 1, f"{event!r} is not the next attempt"
    start_time = event.time if call.start_time is None else call.start_time
    return replace(call, attempts=event.attempt, open=True, due_time=None, start_time=start_time)


def settle(
    call: CallState,
    event: StepSucceeded | StepOutputRefused | StepRefused | CompensationSucceeded | CompensationFailed,
    error: Error | None = None,
) -> CallState:
    _assert_awaited(call, event)
    error = error or call.error
    return replace(call, open=False, due_time=None, waiting=False, error=error, end_time=event.time)


def schedule(call: CallState, event: StepRetryScheduled | CompensationRetryScheduled) -> CallState:
    _assert_awaited(call, event)
    waiting = call.waiting and call.open  # a question that is lost leaves the work as it was
    refused = isinstance(event, StepRetryScheduled) and event.refused
    return replace(
        call,
        open=False,
        due_time=event.due_time,
        waiting=waiting,
        forgiven=call.attempts - call.counted(refused=refused),
        error=event.error,
        broken=call.attempts if call.takes_word and not refused else call.broken,
        put_off_time=None,
    )


def hear(call: CallState, error: Error | None) -> CallState:
    """Note that no attempt made so far can be refused any more."""
    return replace(call, heard=call.attempts, heard_error=error)


def refuse(call: CallState, event: StepRefused | StepRetryScheduled, unproven: int) -> CallState:
    """End an attempt, or work in progress, that was refused.

    If an attempt before may have had its effect, and no work was said to be in progress, its token is good still: what
    it says is then no repetition.
    """
    refused = settle(call, event, event.error) if isinstance(event, StepRefused) else schedule(call, event)
    refused = replace(refused, waiting=False)
    return hear(refused, event.error) if call.waiting or unproven == 0 else refused


def defer(call: CallState, event: StepDeferred) -> CallState:
    _assert_awaited(call, event)
    worked = call.worked if call.waiting else call.attempts - call.forgiven
    deferred = replace(call, open=False, due_time=event.due_time, waiting=True, put_off_time=None)
    return replace(deferred, forgiven=call.attempts, worked=worked)


def give_up(call: CallState, event: StepGivenUp) -> CallState:
    assert call.active, f"{event!r} of a call that is over"
    return replace(call, open=False, due_time=None, waiting=False, error=event.error, end_time=event.time)


def fail_uncalled(call: CallState, event: StepRefused | CompensationFailed) -> CallState:
    assert not call.open, f"{event!r} while an attempt is open"
    return replace(call, due_time=None, error=event.error, end_time=event.time)


def withdraw(call: CallState, event: AttemptWithdrawn) -> CallState:
    """Have the next attempt due; that one more is forgiven keeps the count of those that were really made."""
    assert call.open, f"{event!r} while no attempt is open"
    assert event.attempt == call.attempts, f"{event!r} of another attempt"
    withdrawn = replace(call, open=False, due_time=event.due_time or event.time, forgiven=call.forgiven + 1)
    if event.due_time is None or call.put_off_time is not None:
        return withdrawn
    return replace(withdrawn, put_off_time=event.time)


def _assert_awaited(call: CallState, event: ActionEvent | StepDeferred | StepOutputRefused | CompensationEvent) -> None:
    """The open attempt is answered; while the participant is at work, with the token of any attempt."""
    assert call.open or call.waiting, f"{event!r} while no outcome is waited for"
    assert event.attempt == call.attempts or (not call.open and 0 < event.attempt <= call.attempts), (
        f"{event!r} of another attempt"
    )


def resume(call: CallState, pause_time: Time, time: Time) -> CallState:
    """Give a call that goes on the time back in which its saga was paused: nobody could have tried it then."""
    since = call.forgiven_time or call.start_time
    if since is None or not call.active:
        return call
    put_off = call.put_off_time
    return replace(
        call,
        forgiven_time=since + time - max(since, pause_time),
        put_off_time=None if put_off is None else put_off + time - max(put_off, pause_time),
    )


def forgive(call: CallState, time: Time) -> CallState:
    return replace(call, forgiven=call.attempts, forgiven_time=time, end_time=None, put_off_time=None)
