"""The one table from gRPC statuses to exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from amends import errors

_DETAILS_KEY = "grpc-status-details-bin"

EXCEPTIONS: Mapping[grpc.StatusCode, type[errors.RpcError]] = {
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNKNOWN: errors.Unknown,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.INTERNAL: errors.Internal,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.DataLoss,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
}


def exception_of(error: grpc.aio.AioRpcError) -> errors.RpcError:
    """The exception for a call that did not end with OK."""
    return exception_of_status(error.code(), error.details() or "", _status(error))


def exception_of_status(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> errors.RpcError:
    """The exception for a status other than OK and its details."""
    info, violations = _details(status)
    return EXCEPTIONS.get(code, errors.Unknown)(
        "; ".join([message or code.name, *(f"{each.field}: {each.description}" for each in violations)]),
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=violations,
    )


def undecodable() -> errors.Unknown:
    """grpc.aio gives None with OK for an answer that it cannot decode: that must never pass for a success."""
    return errors.Unknown("The answer of the orchestrator cannot be decoded.", code=grpc.StatusCode.UNKNOWN)


def _details(status: status_pb2.Status) -> tuple[error_details_pb2.ErrorInfo, list[errors.Violation]]:
    """What is there of these; a detail that cannot be read counts as none, for the code says enough to go on."""
    info, violations = error_details_pb2.ErrorInfo(), list[errors.Violation]()
    for detail in status.details:
        found, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        with suppress(DecodeError):
            if detail.Unpack(found):
                info = found
            elif detail.Unpack(bad_request):
                violations += [errors.Violation(each.field, each.description) for each in bad_request.field_violations]
    return info, violations


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The details; none if they cannot be read, for the status itself says enough to go on."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                status.ParseFromString(value)
    return status
