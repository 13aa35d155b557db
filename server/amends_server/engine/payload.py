"""User data as the engine sees it: JSON that templates may look into, and two forms that pass through unread."""

from __future__ import annotations

from amends_server.engine.value import dataclass

PAYLOAD_BYTES_MAX = 1 << 20
"""Of one payload, by default: sagas carry references and small records; four of these fit into one message."""


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON text (RFC 8259). Whoever makes one has checked that it is valid."""

    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """A serialised protobuf message and the URL of its type."""

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes that only the users can read, and their media type."""

    data: bytes
    content_type: str


Payload = Json | Message | Opaque


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong: a stable code, a sentence, who said so ("" for the orchestrator), and the participant's data."""

    code: str
    message: str
    participant: str = ""
    data: Payload | None = None


@dataclass(frozen=True, slots=True)
class RelatedService:
    """Another service that took part in a step, and what it did or holds."""

    name: str
    reference: str


def payload_size_bytes(payload: Payload | None) -> int:
    """Count the bytes of user data, for limits. What says their type is the user's, too, and may be as large."""
    match payload:
        case None:
            return 0
        case Json(text):
            return text_size_bytes(text)
        case Message(type_url, value):
            return text_size_bytes(type_url) + len(value)
        case Opaque(data, content_type):
            return len(data) + text_size_bytes(content_type)


def text_size_bytes(text: str) -> int:
    """Count the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
