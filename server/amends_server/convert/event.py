"""Events of the journal to messages, and back.

One function a kind and direction, found in a dict by type or by name, since every event of every saga comes through.
They write into the message that is there, which takes half the time of building messages and putting them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amends.v1 import saga_pb2 as pb
from amends_server.convert.cause import cause_from_wire, set_cause
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


def kind_of(event: e.Event) -> str:
    """Return the short name of an event's kind, for example `step_succeeded`."""
    return _WRITERS[type(event)][0]


def event_to_wire(event: e.Event, sequence: int) -> pb.Event:
    """Return the message of an event. A start loses its namespace and saga_id, which whoever asks for it knows."""
    message = pb.Event()
    message.sequence = sequence
    set_time(message.time, event.time)
    _WRITERS[type(event)][1](message, event)
    return message


def event_from_wire(message: pb.Event, namespace: str, saga_id: str) -> e.Event:
    """Return the event of a message from that saga's journal.

    :raises ValueError: if it is of no known kind, or holds a value that this version does not know.
    """
    if not message.HasField("time"):
        raise ValueError("it has no time")
    kind, time = message.WhichOneof("kind"), time_from_wire(message.time)
    if kind == "saga_started":
        return _read_saga_started(message.saga_started, time, namespace, saga_id)
    read = _READERS.get(kind or "none")
    if read is None:
        raise ValueError(f"its kind ({kind or 'none'}) is not known to this version")
    return read(message, time)


def _write_saga_started(to: pb.Event, event: e.SagaStarted) -> None:
    started = to.saga_started
    started.definition_digest = event.definition_digest
    if event.input is not None:
        set_payload(started.input, event.input)
    started.labels.update(event.labels)
    if event.deadline is not None:
        set_time(started.deadline_time, event.deadline)
    started.principal = event.principal
    started.traceparent = event.traceparent


def _read_saga_started(started: pb.SagaStarted, time: Time, namespace: str, saga_id: str) -> e.SagaStarted:
    return e.SagaStarted(
        time=time,
        namespace=namespace,
        saga_id=saga_id,
        definition_digest=started.definition_digest,
        input=payload_from_wire(started.input),
        labels=dict(started.labels),
        deadline=time_from_wire(started.deadline_time) if started.HasField("deadline_time") else None,
        principal=started.principal,
        traceparent=started.traceparent,
    )


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


def _write_step_retry_scheduled(to: pb.Event, event: e.StepRetryScheduled) -> None:
    _write_retry(to.step_retry_scheduled, event)


def _read_step_retry_scheduled(message: pb.Event, time: Time) -> e.Event:
    kind = message.step_retry_scheduled
    due_time = time_from_wire(kind.due_time)
    return e.StepRetryScheduled(time, kind.step, kind.attempt, error_from_wire(kind.error), due_time)


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


def _write_saga_turned_back(to: pb.Event, event: e.SagaTurnedBack) -> None:
    set_cause(to.saga_turned_back.cause, event.cause)


def _read_saga_turned_back(message: pb.Event, time: Time) -> e.Event:
    return e.SagaTurnedBack(time, cause_from_wire(message.saga_turned_back.cause))


def _write_saga_stuck(to: pb.Event, event: e.SagaStuck) -> None:
    to.saga_stuck.SetInParent()
    to.saga_stuck.steps.extend(event.steps)


def _read_saga_stuck(message: pb.Event, time: Time) -> e.Event:
    return e.SagaStuck(time, tuple(message.saga_stuck.steps))


def _write_saga_retried(to: pb.Event, event: e.SagaRetried) -> None:
    _write_request(to.saga_retried, event)


def _read_saga_retried(message: pb.Event, time: Time) -> e.Event:
    return e.SagaRetried(time, message.saga_retried.reason, message.saga_retried.principal)


def _write_saga_paused(to: pb.Event, event: e.SagaPaused) -> None:
    _write_request(to.saga_paused, event)


def _read_saga_paused(message: pb.Event, time: Time) -> e.Event:
    return e.SagaPaused(time, message.saga_paused.reason, message.saga_paused.principal)


def _write_saga_resumed(to: pb.Event, event: e.SagaResumed) -> None:
    _write_request(to.saga_resumed, event)


def _read_saga_resumed(message: pb.Event, time: Time) -> e.Event:
    return e.SagaResumed(time, message.saga_resumed.reason, message.saga_resumed.principal)


def _write_saga_completed(to: pb.Event, event: e.SagaCompleted) -> None:
    to.saga_completed.SetInParent()
    if event.output is not None:
        set_payload(to.saga_completed.output, event.output)
    if event.output_error is not None:
        set_error(to.saga_completed.output_error, event.output_error)


def _read_saga_completed(message: pb.Event, time: Time) -> e.Event:
    kind = message.saga_completed
    output_error = error_from_wire(kind.output_error) if kind.HasField("output_error") else None
    return e.SagaCompleted(time, payload_from_wire(kind.output), output_error)


def _write_saga_compensated(to: pb.Event, _: e.SagaCompensated) -> None:
    to.saga_compensated.SetInParent()


def _read_saga_compensated(_: pb.Event, time: Time) -> e.Event:
    return e.SagaCompensated(time)


def _write_saga_failed(to: pb.Event, event: e.SagaFailed) -> None:
    _write_request(to.saga_failed, event)


def _read_saga_failed(message: pb.Event, time: Time) -> e.Event:
    return e.SagaFailed(time, message.saga_failed.reason, message.saga_failed.principal)


def _write_attempt_withdrawn(to: pb.Event, event: e.AttemptWithdrawn) -> None:
    kind = to.attempt_withdrawn
    kind.step = event.step
    kind.attempt = event.attempt
    kind.compensation = event.compensation
    set_error(kind.error, event.error)


def _read_attempt_withdrawn(message: pb.Event, time: Time) -> e.Event:
    kind = message.attempt_withdrawn
    return e.AttemptWithdrawn(time, kind.step, kind.attempt, kind.compensation, error_from_wire(kind.error))


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


def _write_request(
    to: pb.SagaRetried | pb.SagaPaused | pb.SagaResumed | pb.SagaFailed,
    event: e.SagaRetried | e.SagaPaused | e.SagaResumed | e.SagaFailed,
) -> None:
    to.SetInParent()  # also when both of its fields are empty
    to.reason = event.reason
    to.principal = event.principal


_WRITERS: dict[type[e.Event], tuple[str, Callable[[pb.Event, Any], None]]] = {
    e.SagaStarted: ("saga_started", _write_saga_started),
    e.StepDispatched: ("step_dispatched", _write_step_dispatched),
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
    e.SagaTurnedBack: ("saga_turned_back", _write_saga_turned_back),
    e.SagaStuck: ("saga_stuck", _write_saga_stuck),
    e.SagaRetried: ("saga_retried", _write_saga_retried),
    e.SagaPaused: ("saga_paused", _write_saga_paused),
    e.SagaResumed: ("saga_resumed", _write_saga_resumed),
    e.SagaCompleted: ("saga_completed", _write_saga_completed),
    e.SagaCompensated: ("saga_compensated", _write_saga_compensated),
    e.SagaFailed: ("saga_failed", _write_saga_failed),
    e.AttemptWithdrawn: ("attempt_withdrawn", _write_attempt_withdrawn),
    e.LateReplyRecorded: ("late_reply_recorded", _write_late_reply_recorded),
}

_READERS: dict[str, Callable[[pb.Event, Time], e.Event]] = {
    "step_dispatched": _read_step_dispatched,
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
    "saga_turned_back": _read_saga_turned_back,
    "saga_stuck": _read_saga_stuck,
    "saga_retried": _read_saga_retried,
    "saga_paused": _read_saga_paused,
    "saga_resumed": _read_saga_resumed,
    "saga_completed": _read_saga_completed,
    "saga_compensated": _read_saga_compensated,
    "saga_failed": _read_saga_failed,
    "attempt_withdrawn": _read_attempt_withdrawn,
    "late_reply_recorded": _read_late_reply_recorded,
}
