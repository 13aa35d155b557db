"""The events of a saga as a client sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self, cast

from google.protobuf.message import Message

from amends.v1 import orchestrator_pb2, payload_pb2, saga_pb2
from amends.views import Cause, Problem, SagaStatus


class EventKind(StrEnum):
    """What happened. The values are the names of the wire."""

    SAGA_STARTED = "saga_started"
    STEP_DISPATCHED = "step_dispatched"
    STEP_SUCCEEDED = "step_succeeded"
    STEP_REFUSED = "step_refused"
    STEP_RETRY_SCHEDULED = "step_retry_scheduled"
    STEP_GIVEN_UP = "step_given_up"
    STEP_DEFERRED = "step_deferred"
    STEP_SKIPPED = "step_skipped"
    STEP_DELAYED = "step_delayed"
    STEP_OUTPUT_REFUSED = "step_output_refused"
    STEP_ERROR_HANDLED = "step_error_handled"
    COMPENSATION_DISPATCHED = "compensation_dispatched"
    COMPENSATION_SUCCEEDED = "compensation_succeeded"
    COMPENSATION_RETRY_SCHEDULED = "compensation_retry_scheduled"
    COMPENSATION_FAILED = "compensation_failed"
    COMPENSATION_OMITTED = "compensation_omitted"
    STEP_RESOLVED = "step_resolved"
    SAGA_TURNED_BACK = "saga_turned_back"
    SAGA_STUCK = "saga_stuck"
    SAGA_RETRIED = "saga_retried"
    SAGA_PAUSED = "saga_paused"
    SAGA_RESUMED = "saga_resumed"
    SAGA_RESTORED = "saga_restored"
    SAGA_COMPLETED = "saga_completed"
    SAGA_COMPENSATED = "saga_compensated"
    SAGA_FAILED = "saga_failed"
    ATTEMPT_WITHDRAWN = "attempt_withdrawn"
    LATE_REPLY_RECORDED = "late_reply_recorded"
    UNRECOGNISED = "unrecognised"
    """Said by an orchestrator that is newer than this package."""

    @property
    def is_final(self) -> bool:
        """Whether it is the last event of a saga but for late replies."""
        return self in (EventKind.SAGA_COMPLETED, EventKind.SAGA_COMPENSATED, EventKind.SAGA_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact of a saga's life. `sequence` counts from 1 without holes; `status` is where the saga stood after it.

    `step`, `attempt`, `error` and `cause` are None where the kind of event has none. `message`
    has all that the orchestrator said.
    """

    sequence: int
    time: datetime
    kind: EventKind
    status: SagaStatus
    step: str | None
    attempt: int | None
    error: Problem | None
    cause: Cause | None
    reason: str
    principal: str
    message: saga_pb2.Event

    @classmethod
    def of(cls, response: orchestrator_pb2.WatchSagaResponse) -> Self:
        event = response.event
        name = event.WhichOneof("kind")
        fields = {} if name is None else _fields(cast("Message", getattr(event, name)))
        return cls(
            sequence=event.sequence,
            time=event.time.ToDatetime(tzinfo=UTC),
            kind=EventKind.UNRECOGNISED if name is None else EventKind(name),
            status=SagaStatus.of(response.status),
            step=_text(fields.get("step")) or None,
            attempt=cast("int | None", fields.get("attempt")),
            error=_problem(fields.get("error")),
            cause=_cause(fields.get("cause")),
            reason=_text(fields.get("reason")),
            principal=_text(fields.get("principal")),
            message=event,
        )


def _fields(fact: Message) -> dict[str, object]:
    return {field.name: cast("object", getattr(fact, field.name)) for field in fact.DESCRIPTOR.fields}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _problem(value: object) -> Problem | None:
    return Problem.of(value) if isinstance(value, payload_pb2.Error) else None


def _cause(value: object) -> Cause | None:
    return Cause.of(value) if isinstance(value, saga_pb2.Cause) else None
