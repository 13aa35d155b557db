"""Why a saga turned back."""

from __future__ import annotations

from typing import assert_never

from amends.v1 import saga_pb2 as pb
from amends_server.convert.payload import error_from_wire, set_error
from amends_server.convert.times import set_time, time_from_wire
from amends_server.engine.events import Cancelled, Cause, DeadlinePassed, StepFailed, TurnedByOperator


def set_cause(to: pb.Cause, cause: Cause) -> None:
    """Write a cause into a field that is there already."""
    match cause:
        case StepFailed(step, error):
            to.step.step = step
            set_error(to.step.error, error)
        case DeadlinePassed(deadline):
            set_time(to.deadline.deadline_time, deadline)
        case Cancelled():
            _set_request(to.cancel, cause)
        case TurnedByOperator():
            _set_request(to.operator, cause)
        case _:
            assert_never(cause)


def cause_from_wire(message: pb.Cause) -> Cause:
    """Return a cause.

    :raises ValueError: if it is of no known kind.
    """
    match message.WhichOneof("kind"):
        case "step":
            return StepFailed(message.step.step, error_from_wire(message.step.error))
        case "deadline":
            return DeadlinePassed(time_from_wire(message.deadline.deadline_time))
        case "cancel":
            return Cancelled(message.cancel.reason, message.cancel.principal)
        case "operator":
            return TurnedByOperator(message.operator.reason, message.operator.principal)
        case None:
            raise ValueError("the cause is of no known kind")


def _set_request(to: pb.RequestCause, cause: Cancelled | TurnedByOperator) -> None:
    to.SetInParent()  # also when both of its fields are empty
    to.reason = cause.reason
    to.principal = cause.principal
