"""How sagas look to a client: the messages of the wire as plain, typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self, TypeVar

from google.protobuf import timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor

from amends.payloads import decode
from amends.v1 import payload_pb2, saga_pb2

T = TypeVar("T")


class SagaStatus(StrEnum):
    """Where a saga stands. COMPLETED, COMPENSATED and FAILED are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    STUCK = "STUCK"
    FAILED = "FAILED"
    UNRECOGNISED = "UNRECOGNISED"
    """Said by an orchestrator that is newer than this package."""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows any more."""
        return self in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED)

    @classmethod
    def of(cls, number: int) -> Self:
        return cls(_member(saga_pb2.SagaStatus.DESCRIPTOR, number, "SAGA_STATUS_"))


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    """The participant answered that it is in progress."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    """The attempts ended without a verdict: the action may or may not have had an effect."""
    SKIPPED = "SKIPPED"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    COMPENSATION_FAILED = "COMPENSATION_FAILED"
    UNRECOGNISED = "UNRECOGNISED"
    """Said by an orchestrator that is newer than this package."""

    @classmethod
    def of(cls, number: int) -> Self:
        return cls(_member(saga_pb2.StepStatus.DESCRIPTOR, number, "STEP_STATUS_"))


class Resolution(StrEnum):
    """A way in which an operator settles a step."""

    SKIPPED = "SKIPPED"
    """Going forward: go on without the step, which had no effect. Going back: go on without its compensation."""
    SUCCEEDED = "SUCCEEDED"
    """The action succeeded, with the output that is given."""
    COMPENSATED = "COMPENSATED"
    """The step has no effect, or none any more."""


@dataclass(frozen=True, slots=True)
class Data:
    """Data of a saga as it travels."""

    payload: payload_pb2.Payload

    def read(self, type: type[T]) -> T:
        """The data as a value of the type; `object` gives plain JSON values.

        :raises PayloadError: if it is not what the type says.
        """
        return decode(self.payload, type)

    def __bool__(self) -> bool:
        return self.payload.WhichOneof("kind") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong in a call or a step. `participant` is empty if the orchestrator itself found it."""

    code: str
    message: str
    participant: str
    data: Data

    @classmethod
    def of(cls, error: payload_pb2.Error) -> Self:
        return cls(code=error.code, message=error.message, participant=error.participant, data=Data(error.data))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class CauseKind(StrEnum):
    """What sort of thing turned a saga back."""

    STEP = "STEP"
    DEADLINE = "DEADLINE"
    CANCEL = "CANCEL"
    OPERATOR = "OPERATOR"
    UNRECOGNISED = "UNRECOGNISED"
    """Said by an orchestrator that is newer than this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a saga turned back. `step` and `error` are for STEP, `reason` and `principal` for CANCEL and OPERATOR."""

    kind: CauseKind
    step: str | None = None
    error: Problem | None = None
    deadline: datetime | None = None
    reason: str = ""
    principal: str = ""

    @classmethod
    def of(cls, cause: saga_pb2.Cause) -> Self:
        match cause.WhichOneof("kind"):
            case "step":
                return cls(kind=CauseKind.STEP, step=cause.step.step, error=Problem.of(cause.step.error))
            case "deadline":
                return cls(kind=CauseKind.DEADLINE, deadline=_time(cause.deadline.deadline_time))
            case "cancel":
                return cls(kind=CauseKind.CANCEL, reason=cause.cancel.reason, principal=cause.cancel.principal)
            case "operator":
                return cls(kind=CauseKind.OPERATOR, reason=cause.operator.reason, principal=cause.operator.principal)
            case None:
                return cls(kind=CauseKind.UNRECOGNISED)

    def __str__(self) -> str:
        match self.kind:
            case CauseKind.STEP:
                return f"step {self.step}: {self.error}"
            case CauseKind.DEADLINE:
                return f"its deadline passed at {self.deadline}"
            case CauseKind.CANCEL:
                return f"cancelled by {self.principal or 'a client'}: {self.reason}"
            case CauseKind.OPERATOR:
                return f"turned back by {self.principal or 'an operator'}: {self.reason}"
            case CauseKind.UNRECOGNISED:
                return "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckView:
    """Why a saga needs an operator: the steps that block it, the error of the first, since when, how often by now."""

    steps: tuple[str, ...]
    error: Problem
    compensating: bool
    start_time: datetime | None
    count: int

    @classmethod
    def of(cls, stuck: saga_pb2.Stuck) -> Self:
        return cls(
            steps=tuple(stuck.steps),
            error=Problem.of(stuck.error),
            compensating=stuck.compensating,
            start_time=_time(stuck.start_time),
            count=stuck.count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A step as it stands. `error` is the last one of the action; it is kept after a rollback. `message` has it all.

    `due_time` is when the next attempt follows, while one is waited for.
    """

    id: str
    participant: str
    action: str
    status: StepStatus
    attempts: int
    compensation_attempts: int
    error: Problem | None
    compensation_error: Problem | None
    input: Data
    output: Data
    start_time: datetime | None
    end_time: datetime | None
    due_time: datetime | None
    message: saga_pb2.Step

    @classmethod
    def of(cls, step: saga_pb2.Step) -> Self:
        return cls(
            id=step.id,
            participant=step.participant,
            action=step.action,
            status=StepStatus.of(step.status),
            attempts=step.attempts,
            compensation_attempts=step.compensation_attempts,
            error=Problem.of(step.error) if step.HasField("error") else None,
            compensation_error=Problem.of(step.compensation_error) if step.HasField("compensation_error") else None,
            input=Data(step.input),
            output=Data(step.output),
            start_time=_time(step.start_time) if step.HasField("start_time") else None,
            end_time=_time(step.end_time) if step.HasField("end_time") else None,
            due_time=_time(step.due_time) if step.HasField("due_time") else None,
            message=step,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaView:
    """A saga as it stood after the event `sequence`. `message` has all that the orchestrator said.

    `due_time` is when it goes on if nobody answers before: its start, the next retry, or a deadline. `deadline_time` is
    when it turns back, unless it has ended or is at its pivot by then.
    """

    namespace: str
    id: str
    definition: str
    definition_version: int
    status: SagaStatus
    paused: bool
    cause: Cause | None
    stuck: StuckView | None
    labels: Mapping[str, str]
    steps: tuple[StepView, ...]
    input: Data
    output: Data
    sequence: int
    create_time: datetime | None
    end_time: datetime | None
    due_time: datetime | None
    deadline_time: datetime | None
    message: saga_pb2.Saga

    @classmethod
    def of(cls, saga: saga_pb2.Saga) -> Self:
        return cls(
            namespace=saga.namespace,
            id=saga.saga_id,
            definition=saga.definition,
            definition_version=saga.definition_version,
            status=SagaStatus.of(saga.status),
            paused=saga.paused,
            cause=Cause.of(saga.cause) if saga.HasField("cause") else None,
            stuck=StuckView.of(saga.stuck) if saga.HasField("stuck") else None,
            labels=dict(saga.labels),
            steps=tuple(StepView.of(step) for step in saga.steps),
            input=Data(saga.input),
            output=Data(saga.output),
            sequence=saga.sequence,
            create_time=_time(saga.create_time) if saga.HasField("create_time") else None,
            end_time=_time(saga.end_time) if saga.HasField("end_time") else None,
            due_time=_time(saga.due_time) if saga.HasField("due_time") else None,
            deadline_time=_time(saga.deadline_time) if saga.HasField("deadline_time") else None,
            message=saga,
        )

    def step(self, step_id: str) -> StepView:
        """The step of that id.

        :raises KeyError: if there is none.
        """
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)


def _time(stamp: timestamp_pb2.Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _member(descriptor: EnumDescriptor, number: int, prefix: str) -> str:
    value = descriptor.values_by_number.get(number)
    return "UNRECOGNISED" if value is None or value.number == 0 else value.name.removeprefix(prefix)
