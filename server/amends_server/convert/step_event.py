"""Events of steps to messages, and back: one function a kind and direction. See `event`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amends.v1 import saga_pb2 as pb
from amends_server.convert.enums import (
    LATE_REPLY_FROM_WIRE,
    LATE_REPLY_TO_WIRE,
    RESOLUTION_FROM_WIRE,
    RESOLUTION_TO_WIRE,
)
from amends_server.convert.payload import (
    error_from_wire,
    payload_from_wire,
    related_services_from_wire,
    related_services_to_wire,
    set_error,
    set_payload,
)
from amends_server.convert.times import set_time, time_from_wire
from amends_server.engine import events as e
from amends_server.engine.policy import Time


def _write_step_skipped(to: pb.Event, event: e.StepSkipped) -> None:
    to.step_skipped.SetInParent()
    to.step_skipped.step = event.step


def _read_step_skipped(message: pb.Event, time: Time) -> e.Event:
    return e.StepSkipped(time, message.step_skipped.step)


def _write_step_delayed(to: pb.Event, event: e.StepDelayed) -> None:
    to.step_delayed.step = event.step
    set_time(to.step_delayed.due_time, event.due_time)


def _read_step_delayed(message: pb.Event, time: Time) -> e.Event:
    return e.StepDelayed(time, message.step_delayed.step, time_from_wire(message.step_delayed.due_time))


def _write_step_dispatched(to: pb.Event, event: e.StepDispatched) -> None:
    kind = to.step_dispatched
    kind.step = event.step
    kind.attempt = event.attempt
    if event.input is not None:
        set_payload(kind.input, event.input)


def _read_step_dispatched(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_dispatched
    return e.StepDispatched(time, kind.step, kind.attempt, payload_from_wire(kind.input))


def _write_step_succeeded(to: pb.Event, event: e.StepSucceeded) -> None:
    kind = to.step_succeeded
    kind.step = event.step
    kind.attempt = event.attempt
    if event.output is not None:
        set_payload(kind.output, event.output)
    if event.related_services:
        kind.related_services.extend(related_services_to_wire(event.related_services))


def _read_step_succeeded(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_succeeded
    related = related_services_from_wire(kind.related_services)
    return e.StepSucceeded(time, kind.step, kind.attempt, payload_from_wire(kind.output), related)


def _write_step_refused(to: pb.Event, event: e.StepRefused) -> None:
    kind = to.step_refused
    kind.step = event.step
    kind.attempt = event.attempt
    set_error(kind.error, event.error)
    kind.stored = event.stored
    if event.related_services:
        kind.related_services.extend(related_services_to_wire(event.related_services))


def _read_step_refused(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_refused
    related = related_services_from_wire(kind.related_services)
    return e.StepRefused(time, kind.step, kind.attempt, error_from_wire(kind.error), kind.stored, related)


def _write_step_output_refused(to: pb.Event, event: e.StepOutputRefused) -> None:
    kind = to.step_output_refused
    kind.step = event.step
    kind.attempt = event.attempt
    if event.output is not None:
        set_payload(kind.output, event.output)
    set_error(kind.error, event.error)
    kind.related_services.extend(related_services_to_wire(event.related_services))


def _read_step_output_refused(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_output_refused
    output, error = payload_from_wire(kind.output), error_from_wire(kind.error)
    related = related_services_from_wire(kind.related_services)
    return e.StepOutputRefused(time, kind.step, kind.attempt, output, error, related)


def _write_step_error_handled(to: pb.Event, event: e.StepErrorHandled) -> None:
    to.step_error_handled.SetInParent()
    to.step_error_handled.step = event.step
    if event.output is not None:
        set_payload(to.step_error_handled.output, event.output)


def _read_step_error_handled(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_error_handled
    return e.StepErrorHandled(time, kind.step, payload_from_wire(kind.output))


def _write_step_retry_scheduled(to: pb.Event, event: e.StepRetryScheduled) -> None:
    _write_retry(to.step_retry_scheduled, event)
    to.step_retry_scheduled.refused = event.refused


def _read_step_retry_scheduled(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_retry_scheduled
    due_time = time_from_wire(kind.due_time)
    return e.StepRetryScheduled(time, kind.step, kind.attempt, error_from_wire(kind.error), due_time, kind.refused)


def _write_step_deferred(to: pb.Event, event: e.StepDeferred) -> None:
    kind = to.step_deferred
    kind.SetInParent()
    kind.step = event.step
    kind.attempt = event.attempt
    if event.due_time is not None:
        set_time(kind.due_time, event.due_time)


def _read_step_deferred(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_deferred
    due_time = time_from_wire(kind.due_time) if kind.HasField("due_time") else None
    return e.StepDeferred(time, kind.step, kind.attempt, due_time)


def _write_step_given_up(to: pb.Event, event: e.StepGivenUp) -> None:
    kind = to.step_given_up
    kind.step = event.step
    kind.attempt = event.attempt
    set_error(kind.error, event.error)


def _read_step_given_up(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_given_up
    return e.StepGivenUp(time, kind.step, kind.attempt, error_from_wire(kind.error))


def _write_compensation_dispatched(to: pb.Event, event: e.CompensationDispatched) -> None:
    kind = to.compensation_dispatched
    kind.step = event.step
    kind.attempt = event.attempt
    if event.arguments is not None:
        set_payload(kind.arguments, event.arguments)


def _read_compensation_dispatched(message: pb.Event, time: Time) -> e.Event:
    kind = message.compensation_dispatched
    return e.CompensationDispatched(time, kind.step, kind.attempt, payload_from_wire(kind.arguments))


def _write_compensation_succeeded(to: pb.Event, event: e.CompensationSucceeded) -> None:
    to.compensation_succeeded.step = event.step
    to.compensation_succeeded.attempt = event.attempt


def _read_compensation_succeeded(message: pb.Event, time: Time) -> e.Event:
    return e.CompensationSucceeded(time, message.compensation_succeeded.step, message.compensation_succeeded.attempt)


def _write_compensation_retry_scheduled(to: pb.Event, event: e.CompensationRetryScheduled) -> None:
    _write_retry(to.compensation_retry_scheduled, event)


def _read_compensation_retry_scheduled(message: pb.Event, time: Time) -> e.Event:
    kind = message.compensation_retry_scheduled
    due_time = time_from_wire(kind.due_time)
    return e.CompensationRetryScheduled(time, kind.step, kind.attempt, error_from_wire(kind.error), due_time)


def _write_compensation_failed(to: pb.Event, event: e.CompensationFailed) -> None:
    kind = to.compensation_failed
    kind.step = event.step
    kind.attempt = event.attempt
    set_error(kind.error, event.error)


def _read_compensation_failed(message: pb.Event, time: Time) -> e.Event:
    kind = message.compensation_failed
    return e.CompensationFailed(time, kind.step, kind.attempt, error_from_wire(kind.error))


def _write_compensation_omitted(to: pb.Event, event: e.CompensationOmitted) -> None:
    to.compensation_omitted.step = event.step


def _read_compensation_omitted(message: pb.Event, time: Time) -> e.Event:
    return e.CompensationOmitted(time, message.compensation_omitted.step)


def _write_step_resolved(to: pb.Event, event: e.StepResolved) -> None:
    kind = to.step_resolved
    kind.step = event.step
    kind.resolution = RESOLUTION_TO_WIRE[event.resolution]
    if event.output is not None:
        set_payload(kind.output, event.output)
    kind.reason = event.reason
    kind.principal = event.principal


def _read_step_resolved(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_resolved
    resolution = RESOLUTION_FROM_WIRE.get(kind.resolution)
    if resolution is None:
        raise ValueError(f"its resolution ({kind.resolution}) is not known to this version")
    return e.StepResolved(time, kind.step, resolution, payload_from_wire(kind.output), kind.reason, kind.principal)


def _write_attempt_withdrawn(to: pb.Event, event: e.AttemptWithdrawn) -> None:
    kind = to.attempt_withdrawn
    kind.step = event.step
    kind.attempt = event.attempt
    kind.compensation = event.compensation
    set_error(kind.error, event.error)
    if event.due_time is not None:
        set_time(kind.due_time, event.due_time)


def _read_attempt_withdrawn(message: pb.Event, time: Time) -> e.Event:
    kind = message.attempt_withdrawn
    due_time = time_from_wire(kind.due_time) if kind.HasField("due_time") else None
    return e.AttemptWithdrawn(time, kind.step, kind.attempt, kind.compensation, error_from_wire(kind.error), due_time)


def _write_late_reply_recorded(to: pb.Event, event: e.LateReplyRecorded) -> None:
    kind = to.late_reply_recorded
    kind.step = event.step
    kind.attempt = event.attempt
    kind.compensation = event.compensation
    kind.status = LATE_REPLY_TO_WIRE[event.reply]


def _read_late_reply_recorded(message: pb.Event, time: Time) -> e.Event:
    kind = message.late_reply_recorded
    reply = LATE_REPLY_FROM_WIRE.get(kind.status)
    if reply is None:
        raise ValueError(f"its reply status ({kind.status}) is not known to this version")
    return e.LateReplyRecorded(time, kind.step, kind.attempt, kind.compensation, reply)


def _write_retry(
    to: pb.StepRetryScheduled | pb.CompensationRetryScheduled,
    event: e.StepRetryScheduled | e.CompensationRetryScheduled,
) -> None:
    to.step = event.step
    to.attempt = event.attempt
    set_error(to.error, event.error)
    set_time(to.due_time, event.due_time)


STEP_WRITERS: dict[type[e.Event], tuple[str, Callable[[pb.Event, Any], None]]] = {
    e.StepDispatched: ("step_dispatched", _write_step_dispatched),
    e.StepSkipped: ("step_skipped", _write_step_skipped),
    e.StepDelayed: ("step_delayed", _write_step_delayed),
    e.StepOutputRefused: ("step_output_refused", _write_step_output_refused),
    e.StepErrorHandled: ("step_error_handled", _write_step_error_handled),
    e.StepDeferred: ("step_deferred", _write_step_deferred),
    e.StepSucceeded: ("step_succeeded", _write_step_succeeded),
    e.StepRefused: ("step_refused", _write_step_refused),
    e.StepRetryScheduled: ("step_retry_scheduled", _write_step_retry_scheduled),
    e.StepGivenUp: ("step_given_up", _write_step_given_up),
    e.CompensationDispatched: ("compensation_dispatched", _write_compensation_dispatched),
    e.CompensationSucceeded: ("compensation_succeeded", _write_compensation_succeeded),
    e.CompensationRetryScheduled: ("compensation_retry_scheduled", _write_compensation_retry_scheduled),
    e.CompensationFailed: ("compensation_failed", _write_compensation_failed),
    e.CompensationOmitted: ("compensation_omitted", _write_compensation_omitted),
    e.StepResolved: ("step_resolved", _write_step_resolved),
    e.AttemptWithdrawn: ("attempt_withdrawn", _write_attempt_withdrawn),
    e.LateReplyRecorded: ("late_reply_recorded", _write_late_reply_recorded),
}

STEP_READERS: dict[str, Callable[[pb.Event, Time], e.Event]] = {
    "step_dispatched": _read_step_dispatched,
    "step_skipped": _read_step_skipped,
    "step_delayed": _read_step_delayed,
    "step_output_refused": _read_step_output_refused,
    "step_error_handled": _read_step_error_handled,
    "step_deferred": _read_step_deferred,
    "step_succeeded": _read_step_succeeded,
    "step_refused": _read_step_refused,
    "step_retry_scheduled": _read_step_retry_scheduled,
    "step_given_up": _read_step_given_up,
    "compensation_dispatched": _read_compensation_dispatched,
    "compensation_succeeded": _read_compensation_succeeded,
    "compensation_retry_scheduled": _read_compensation_retry_scheduled,
    "compensation_failed": _read_compensation_failed,
    "compensation_omitted": _read_compensation_omitted,
    "step_resolved": _read_step_resolved,
    "attempt_withdrawn": _read_attempt_withdrawn,
    "late_reply_recorded": _read_late_reply_recorded,
}
