"""The engine's enumerations and their numbers on the wire, as tables."""

from __future__ import annotations

from amends.v1 import definition_pb2, orchestrator_pb2, saga_pb2
from amends_server.engine.checks.plan import Outcome
from amends_server.engine.checks.problem import Severity
from amends_server.engine.definition import Kind, OnCompensationFailure
from amends_server.engine.events import LateReply, Resolution
from amends_server.engine.policy import Backoff
from amends_server.engine.state import SagaStatus, StepStatus

KIND_TO_WIRE = {
    Kind.COMPENSATABLE: definition_pb2.STEP_KIND_COMPENSATABLE,
    Kind.PIVOT: definition_pb2.STEP_KIND_PIVOT,
    Kind.RETRIABLE: definition_pb2.STEP_KIND_RETRIABLE,
}
KIND_FROM_WIRE = {number: kind for kind, number in KIND_TO_WIRE.items()} | {
    definition_pb2.STEP_KIND_UNSPECIFIED: Kind.COMPENSATABLE
}

BACKOFF_TO_WIRE = {
    Backoff.FIXED: definition_pb2.BACKOFF_FIXED,
    Backoff.LINEAR: definition_pb2.BACKOFF_LINEAR,
    Backoff.EXPONENTIAL: definition_pb2.BACKOFF_EXPONENTIAL,
}
BACKOFF_FROM_WIRE = {number: backoff for backoff, number in BACKOFF_TO_WIRE.items()} | {
    definition_pb2.BACKOFF_UNSPECIFIED: Backoff.EXPONENTIAL
}

ON_COMPENSATION_FAILURE_TO_WIRE = {
    OnCompensationFailure.HALT: definition_pb2.ON_COMPENSATION_FAILURE_HALT,
    OnCompensationFailure.CONTINUE: definition_pb2.ON_COMPENSATION_FAILURE_CONTINUE,
}
ON_COMPENSATION_FAILURE_FROM_WIRE = {number: choice for choice, number in ON_COMPENSATION_FAILURE_TO_WIRE.items()} | {
    definition_pb2.ON_COMPENSATION_FAILURE_UNSPECIFIED: OnCompensationFailure.HALT
}

SEVERITY_TO_WIRE = {
    Severity.ERROR: definition_pb2.SEVERITY_ERROR,
    Severity.WARNING: definition_pb2.SEVERITY_WARNING,
}

OUTCOME_TO_WIRE = {
    Outcome.TURNS_BACK: orchestrator_pb2.FAILURE_OUTCOME_TURNS_BACK,
    Outcome.STUCK: orchestrator_pb2.FAILURE_OUTCOME_STUCK,
    Outcome.RETRIES: orchestrator_pb2.FAILURE_OUTCOME_RETRIES,
    Outcome.GOES_ON: orchestrator_pb2.FAILURE_OUTCOME_GOES_ON,
}

SAGA_STATUS_TO_WIRE = {
    SagaStatus.PENDING: saga_pb2.SAGA_STATUS_PENDING,
    SagaStatus.RUNNING: saga_pb2.SAGA_STATUS_RUNNING,
    SagaStatus.COMPLETED: saga_pb2.SAGA_STATUS_COMPLETED,
    SagaStatus.COMPENSATING: saga_pb2.SAGA_STATUS_COMPENSATING,
    SagaStatus.COMPENSATED: saga_pb2.SAGA_STATUS_COMPENSATED,
    SagaStatus.STUCK: saga_pb2.SAGA_STATUS_STUCK,
    SagaStatus.FAILED: saga_pb2.SAGA_STATUS_FAILED,
}
SAGA_STATUS_FROM_WIRE = {number: status for status, number in SAGA_STATUS_TO_WIRE.items()}

STEP_STATUS_TO_WIRE = {
    StepStatus.PENDING: saga_pb2.STEP_STATUS_PENDING,
    StepStatus.RUNNING: saga_pb2.STEP_STATUS_RUNNING,
    StepStatus.WAITING: saga_pb2.STEP_STATUS_WAITING,
    StepStatus.SUCCEEDED: saga_pb2.STEP_STATUS_SUCCEEDED,
    StepStatus.FAILED: saga_pb2.STEP_STATUS_FAILED,
    StepStatus.UNKNOWN: saga_pb2.STEP_STATUS_UNKNOWN,
    StepStatus.SKIPPED: saga_pb2.STEP_STATUS_SKIPPED,
    StepStatus.COMPENSATING: saga_pb2.STEP_STATUS_COMPENSATING,
    StepStatus.COMPENSATED: saga_pb2.STEP_STATUS_COMPENSATED,
    StepStatus.COMPENSATION_FAILED: saga_pb2.STEP_STATUS_COMPENSATION_FAILED,
}

RESOLUTION_TO_WIRE = {
    Resolution.SKIPPED: saga_pb2.STEP_RESOLUTION_SKIPPED,
    Resolution.SUCCEEDED: saga_pb2.STEP_RESOLUTION_SUCCEEDED,
    Resolution.COMPENSATED: saga_pb2.STEP_RESOLUTION_COMPENSATED,
}
RESOLUTION_FROM_WIRE = {number: resolution for resolution, number in RESOLUTION_TO_WIRE.items()}

LATE_REPLY_TO_WIRE = {
    LateReply.SUCCEEDED: saga_pb2.REPLY_STATUS_SUCCESS,
    LateReply.REFUSED: saga_pb2.REPLY_STATUS_ERROR,
    LateReply.UNKNOWN: saga_pb2.REPLY_STATUS_SYSTEM_ERROR,
    LateReply.IN_PROGRESS: saga_pb2.REPLY_STATUS_IN_PROGRESS,
}
LATE_REPLY_FROM_WIRE = {number: reply for reply, number in LATE_REPLY_TO_WIRE.items()}
