"""Events of the journal to messages, and back.

One function a kind and direction, found in a dict by type or by name, since every event of every saga comes through.
They write into the message that is there, which takes half the time of building messages and putting them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amends.v1 import saga_pb2 as pb
from amends_server.convert.cause import cause_from_wire, set_cause
from amends_server.convert.payload import (
    error_from_wire,
    payload_from_wire,
    set_error,
    set_payload,
)
from amends_server.convert.step_event import STEP_READERS, STEP_WRITERS
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
    if event.start_time is not None:
        set_time(started.start_time, event.start_time)


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
        start_time=time_from_wire(started.start_time) if started.HasField("start_time") else None,
    )


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


def _write_saga_restored(to: pb.Event, _: e.SagaRestored) -> None:
    to.saga_restored.SetInParent()


def _read_saga_restored(_: pb.Event, time: Time) -> e.Event:
    return e.SagaRestored(time)


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


def _write_request(
    to: pb.SagaRetried | pb.SagaPaused | pb.SagaResumed | pb.SagaFailed,
    event: e.SagaRetried | e.SagaPaused | e.SagaResumed | e.SagaFailed,
) -> None:
    to.SetInParent()  # also when both of its fields are empty
    to.reason = event.reason
    to.principal = event.principal


_WRITERS: dict[type[e.Event], tuple[str, Callable[[pb.Event, Any], None]]] = STEP_WRITERS | {
    e.SagaStarted: ("saga_started", _write_saga_started),
    e.SagaTurnedBack: ("saga_turned_back", _write_saga_turned_back),
    e.SagaStuck: ("saga_stuck", _write_saga_stuck),
    e.SagaRetried: ("saga_retried", _write_saga_retried),
    e.SagaPaused: ("saga_paused", _write_saga_paused),
    e.SagaResumed: ("saga_resumed", _write_saga_resumed),
    e.SagaRestored: ("saga_restored", _write_saga_restored),
    e.SagaCompleted: ("saga_completed", _write_saga_completed),
    e.SagaCompensated: ("saga_compensated", _write_saga_compensated),
    e.SagaFailed: ("saga_failed", _write_saga_failed),
}

_READERS: dict[str, Callable[[pb.Event, Time], e.Event]] = STEP_READERS | {
    "saga_turned_back": _read_saga_turned_back,
    "saga_stuck": _read_saga_stuck,
    "saga_retried": _read_saga_retried,
    "saga_paused": _read_saga_paused,
    "saga_resumed": _read_saga_resumed,
    "saga_restored": _read_saga_restored,
    "saga_completed": _read_saga_completed,
    "saga_compensated": _read_saga_compensated,
    "saga_failed": _read_saga_failed,
}
