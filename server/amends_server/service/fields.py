"""Fields of requests: what they may hold, and what they mean when they are empty."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from amends_server.config import (
    ID_LENGTH_MAX,
    LABEL_LENGTH_MAX,
    LABELS_MAX,
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    PAGE_TOKEN_LENGTH_MAX,
    REASON_LENGTH_MAX,
)
from amends_server.convert.definition import DURATION_US_MAX
from amends_server.convert.times import duration_from_wire, time_from_wire
from amends_server.engine.checks.validation import NAME
from amends_server.engine.policy import SECOND_US, Time
from amends_server.errors import BadField
from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_NAMESPACE = "default"

TIMES = range(-62_135_596_800 * SECOND_US, 253_402_300_800 * SECOND_US)
"""What a Timestamp may say: the years 1 to 9999."""

_INTEGERS = range(-(1 << 63), 1 << 63)
"""What the store can compare."""

_ID = re.compile(rf"[!-.0-~]{{1,{ID_LENGTH_MAX}}}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TOKEN_BAD = "This is no page token of this list: begin without one, and leave the other fields as they were."  # noqa: S105 – a sentence


def read_namespace(namespace: str) -> str:
    """Return a namespace; the empty one is `default`."""
    if not namespace:
        return DEFAULT_NAMESPACE
    if not NAME.fullmatch(namespace):
        raise BadField("namespace", "It must be a letter, then at most 127 letters, digits, `.`, `_` or `-`.")
    return namespace


def read_key(namespace: str, saga_id: str) -> SagaKey:
    """Return the name of a saga."""
    if not _ID.fullmatch(saga_id):
        message = f"It must have 1 to {ID_LENGTH_MAX} printable ASCII characters, without spaces and slashes."
        raise BadField("saga_id", message)
    return SagaKey(read_namespace(namespace), saga_id)


def read_labels(labels: Mapping[str, str], field: str) -> dict[str, str]:
    """Return labels; few and short, since every list and search carries them."""
    if len(labels) > LABELS_MAX:
        raise BadField(field, f"There may be {LABELS_MAX} labels at the most.")
    for name, value in labels.items():
        if not name or len(name) > LABEL_LENGTH_MAX or len(value) > LABEL_LENGTH_MAX:
            raise BadField(
                f'{field}["{name[:20]}"]', f"Names and values may have {LABEL_LENGTH_MAX} characters, names 1."
            )
        if "\0" in name or "\0" in value:  # the store would end the text there, and not find it again
            raise BadField(field, "Names and values may not hold the character NUL.")
    return dict(labels)


def read_reason(reason: str, field: str = "reason") -> str:
    """Return why somebody does something; kept for ever, so it is bounded."""
    if len(reason) > REASON_LENGTH_MAX:
        raise BadField(field, f"It may have {REASON_LENGTH_MAX} characters at the most.")
    return reason


def need_reason(reason: str, field: str = "reason") -> str:
    """Return why an operator does something, which has to be said."""
    if not reason.strip():
        raise BadField(field, "Say why: it is kept in the saga's journal, with who did it.")
    return read_reason(reason, field)


def read_time(timestamp: Timestamp, field: str) -> Time:
    """Return a time."""
    time = time_from_wire(timestamp)
    if time not in TIMES:
        raise BadField(field, "It must be in the years 1 to 9999.")
    return time


def read_duration(duration: Duration, field: str) -> int:
    """Return the microseconds of a duration, which may be negative."""
    duration_us = duration_from_wire(duration)
    if duration_us > DURATION_US_MAX:
        raise BadField(field, "It must be 100 years or less.")
    return duration_us


def read_page_size(page_size: int) -> int:
    """Return how many items a page may have."""
    if page_size < 0:
        raise BadField("page_size", "It must not be negative; 0 is the default.")
    return min(page_size or PAGE_SIZE, PAGE_SIZE_MAX)


def write_token(place: list[str | int], request: Message) -> str:
    """Return a page token: a place in a list, bound to what was asked for."""
    return base64.urlsafe_b64encode(json.dumps([_question(request), *place]).encode()).decode()


def read_token(token: str, request: Message, kinds: tuple[type, ...]) -> list[Any] | None:
    """Return the place that a token of the same question names, None without a token."""
    if not token:
        return None
    if len(token) > PAGE_TOKEN_LENGTH_MAX:
        raise BadField("page_token", _TOKEN_BAD)
    try:
        question, *place = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise BadField("page_token", _TOKEN_BAD) from None
    if question != _question(request) or tuple(map(type, place)) != kinds or not _storable(place):
        raise BadField("page_token", _TOKEN_BAD)
    return list(place)


def _storable(place: list[Any]) -> bool:
    return all(part in _INTEGERS if isinstance(part, int) else str(part).isascii() for part in place)


def _question(request: Message) -> str:
    """Return what tells one list from another: the request without its place and page size."""
    copy = type(request)()
    copy.CopyFrom(request)
    for field in ("page_token", "page_size"):
        copy.ClearField(field)
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()[:16]


def traceparent(context: Context) -> str:
    """Return the caller's W3C trace context, empty if there is none or it is malformed."""
    for name, value in context.invocation_metadata() or ():
        if name == "traceparent" and isinstance(value, str) and _TRACEPARENT.fullmatch(value):
            return value
    return ""
