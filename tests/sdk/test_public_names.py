"""The names that users import: a change here is a change for all of them."""

from __future__ import annotations

import amends

PUBLIC = """
    COMPENSATABLE ERROR NOT_NEEDED PIVOT RETRIABLE Aborted Action AlreadyExists AmendsError Backoff BarrierError
    BulkResult Call Cancelled Cause CauseKind Client Compensated Compensation Completion Data DataLoss
    DeadlineExceeded DefinitionError Duration ErrorFields ErrorRule Event EventKind Failed FailedPrecondition
    GuardedAction InProgress Internal InvalidArgument Kind NotFound OnCompensationFailure Opaque OutOfRange
    OutsideAction Participant PayloadError PermissionDenied Problem ReferenceUseError Refused Resolution
    ResourceExhausted Retry RpcError Saga SagaError SagaHandle SagaStatus SagaView ServeError ServedAction Step
    StepStatus StepView Stuck StuckView Unauthenticated Unavailable Unimplemented Unknown UnknownFieldError
    Violation Where decode encode on run serve serving
"""


def test_public_names_are_these() -> None:
    assert sorted(amends.__all__) == sorted(PUBLIC.split())


def test_public_names_exist_and_are_documented_by_their_module() -> None:
    assert [name for name in amends.__all__ if not hasattr(amends, name)] == []
    assert [
        name for name in amends.__all__ if isinstance(getattr(amends, name), type) and not getattr(amends, name).__doc__
    ] == []
