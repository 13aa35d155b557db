"""Replies: what became of a handler, as participants answer it."""

from __future__ import annotations

import logging
import re

from amends.errors import AmendsError, InProgress, Refused
from amends.participant.call import Call
from amends.payloads import encode, encode_as
from amends.policies import duration_message
from amends.v1 import payload_pb2, saga_pb2

log = logging.getLogger("amends.participant")


def success(output: object, output_type: object, call: Call) -> saga_pb2.Reply:
    """:raises PayloadError: the output has no place in a payload, or is not of its type."""
    return saga_pb2.Reply(
        status=saga_pb2.REPLY_STATUS_SUCCESS,
        output=encode_as(output, output_type),
        related_services=call.related_services,
    )


def refusal(refused: Refused, participant: str, call: Call) -> saga_pb2.Reply:
    """A business error. Its verdict holds even if its data cannot be sent."""
    error = payload_pb2.Error(code=refused.code, message=refused.message, participant=participant)
    try:
        error.data.CopyFrom(encode(refused.data))
    except Exception:
        log.exception("%s refused step %s with data that cannot be sent", participant, call.step)
    return saga_pb2.Reply(
        status=saga_pb2.REPLY_STATUS_ERROR, error=error, stored=refused.stored, related_services=call.related_services
    )


def in_progress(later: InProgress, call: Call) -> saga_pb2.Reply:
    """The outcome follows: when the handler is asked again, or by a completion."""
    return saga_pb2.Reply(
        status=saga_pb2.REPLY_STATUS_IN_PROGRESS,
        poll_interval=duration_message(later.poll_s, "poll"),
        related_services=call.related_services,
    )


def failure(code: str, message: str, participant: str, call: Call) -> saga_pb2.Reply:
    return saga_pb2.Reply(
        status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR,
        error=payload_pb2.Error(code=code, message=message, participant=participant),
        related_services=call.related_services,
    )


def failure_of(error: BaseException, participant: str, call: Call) -> saga_pb2.Reply:
    """A system error. Only our own exceptions are quoted: the text of others may hold what callers must not see."""
    kind = type(error).__name__
    log.error("%s failed in step %s of saga %s", participant, call.step, call.saga_id, exc_info=error)
    message = str(error) if isinstance(error, AmendsError) else f"The participant raised {kind}; its log says more."
    return failure(_upper_snake(kind), message, participant, call)


def _upper_snake(name: str) -> str:
    """`ConnectionError` → `CONNECTION_ERROR`, `HTTPError` → `HTTP_ERROR`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip("_")).upper()
