"""What an answer tells of a call, as tables: a reply's status, or a gRPC status. Anything unclear is unknown.

A business error is the only proof that an attempt had no effect. Every gRPC status but OK comes from the transport or
from something between, so it proves nothing; some say at least that asking again is pointless.
"""

from __future__ import annotations

import grpc

from amends.v1 import saga_pb2
from amends_server.convert.payload import error_from_wire, read_payload, related_services_from_wire
from amends_server.convert.times import duration_from_wire
from amends_server.engine.commands import InProgress, Refused, Succeeded, Unknown, Verdict
from amends_server.engine.payload import Error, RelatedService
from amends_server.engine.policy import SECOND_US
from amends_server.errors import BadField, PayloadTooLarge

_POINTLESS = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Statuses of an application, or of a proxy, that would be the same again. Of the others, another attempt may tell."""

MESSAGE_TOO_LARGE = "message larger than max"
"""How gRPC says that a message did not fit. It will not fit later either; the call may have had its effect."""

MESSAGE_LENGTH_MAX = 500
"""Characters of a participant's or transport's text that are kept: enough to understand, and no flood."""

CODE_LENGTH_MAX = 128
"""Characters of an error's code that are kept: it is a word for programs."""

RELATED_SERVICES_MAX = 100
"""Related services of a reply that are kept: they are shown to people, with every look at the saga."""


POLL_US_MIN = SECOND_US // 10
"""How soon a participant can have itself asked again: each question is two events in the journal."""

POLL_US_MAX = 365 * 24 * 3600 * SECOND_US
"""How late: whoever needs longer says by itself when it is done."""


def verdict_of_status(participant: str, code: grpc.StatusCode, details: str, *, compensation: bool) -> Verdict:
    """Return what a call that ended with a gRPC status other than OK tells."""
    name = "TIMEOUT" if code is grpc.StatusCode.DEADLINE_EXCEEDED else code.name
    too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and MESSAGE_TOO_LARGE in details
    again = code not in _POINTLESS and (compensation or not too_large)
    message = f"{participant} gave no reply: {code.name}{': ' if details else ''}{details}"
    return Unknown(_error(name, message, participant), again)


def verdict_of_reply(participant: str, reply: saga_pb2.Reply | None, size_bytes_max: int) -> Verdict:
    """Return what a reply tells; None is one that could not be decoded (grpc.aio gives None with OK then)."""
    if reply is None:
        return _unreadable(participant, "the response cannot be decoded")
    match reply.status:
        case saga_pb2.REPLY_STATUS_SUCCESS:
            return _succeeded(participant, reply, size_bytes_max)
        case saga_pb2.REPLY_STATUS_ERROR:
            error = _read_error(participant, reply, "REFUSED", size_bytes_max)
            return Refused(error, reply.stored, _related_services(reply))
        case saga_pb2.REPLY_STATUS_SYSTEM_ERROR:
            return Unknown(_read_error(participant, reply, "SYSTEM_ERROR", size_bytes_max))
        case saga_pb2.REPLY_STATUS_IN_PROGRESS:
            return InProgress(_poll_interval_us(reply))
        case _:
            return _unreadable(participant, f"its status is {reply.status}")


def _poll_interval_us(reply: saga_pb2.Reply) -> int | None:
    if not reply.HasField("poll_interval"):
        return None
    return min(max(duration_from_wire(reply.poll_interval), POLL_US_MIN), POLL_US_MAX)


def _succeeded(participant: str, reply: saga_pb2.Reply, size_bytes_max: int) -> Verdict:
    try:
        output = read_payload(reply.output, "output", size_bytes_max)
    except BadField as problem:
        return _unreadable(participant, str(problem))
    except PayloadTooLarge as problem:
        return Unknown(_error("OUTPUT_TOO_LARGE", str(problem), participant), again=False)
    return Succeeded(output, _related_services(reply))


def _related_services(reply: saga_pb2.Reply) -> tuple[RelatedService, ...]:
    """Return the services that a reply names, as many and as long as are kept."""
    if not reply.related_services:
        return ()
    given = related_services_from_wire(reply.related_services[:RELATED_SERVICES_MAX])
    return tuple(RelatedService(_short(service.name), _short(service.reference)) for service in given)


def _read_error(participant: str, reply: saga_pb2.Reply, code: str, size_bytes_max: int) -> Error:
    """Return the error that a participant gave, without its data if that is unfit: the verdict does not hang on it."""
    given = error_from_wire(reply.error)
    try:
        data = read_payload(reply.error.data, "error.data", size_bytes_max)
    except (BadField, PayloadTooLarge):
        data = None
    error = _error(given.code or code, given.message, participant)
    return Error(error.code, error.message, participant, data)


def _unreadable(participant: str, why: str) -> Unknown:
    return Unknown(_error("REPLY_UNREADABLE", f"{participant} replied with something unreadable: {why}", participant))


def _error(code: str, message: str, participant: str) -> Error:
    return Error(_short(code, CODE_LENGTH_MAX), _short(message), participant)


def _short(text: str, length_max: int = MESSAGE_LENGTH_MAX) -> str:
    return text if len(text) <= length_max else text[: length_max - 1] + "…"
