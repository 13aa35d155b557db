"""User data, errors and related services. `read_…` checks what came from outside; `…_from_wire` trusts the journal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from amends.v1 import payload_pb2 as pb
from amends_server.engine.data.jsonvalue import TemplateError, parse_json
from amends_server.engine.payload import Error, Json, Message, Opaque, Payload, RelatedService, payload_size_bytes
from amends_server.errors import BadField, PayloadTooLarge


def read_payload(message: pb.Payload, field: str, size_bytes_max: int) -> Payload | None:
    """Return a payload that came from outside; None if its kind is unset.

    :raises BadField: if it is not what its kind says.
    :raises PayloadTooLarge: if it has more than `size_bytes_max` bytes of user data.
    """
    payload = payload_from_wire(message)
    size_bytes = payload_size_bytes(payload)
    if size_bytes > size_bytes_max:
        raise PayloadTooLarge(field, size_bytes, size_bytes_max)
    match payload:
        case Json(text):
            check_json(text, f"{field}.json")
        case Message("", _):
            raise BadField(f"{field}.message.type_url", "The message must name its type.")
        case None | Message() | Opaque():
            pass
        case _:
            assert_never(payload)
    return payload


def check_json(text: str, field: str) -> None:
    """Check that a text is JSON that the engine can take.

    :raises BadField: if it is not.
    """
    try:
        parse_json(text)
    except TemplateError as problem:
        raise BadField(field, f"{problem} Send a JSON text, or opaque bytes.") from None


def payload_from_wire(message: pb.Payload) -> Payload | None:
    """Return a payload as it is; None if its kind is unset."""
    match message.WhichOneof("kind"):
        case "json":
            return Json(message.json)
        case "message":
            return Message(message.message.type_url, message.message.value)
        case "opaque":
            return Opaque(message.opaque.data, message.opaque.content_type)
        case None:
            return None


def set_payload(to: pb.Payload, payload: Payload) -> None:
    """Write a payload into a field that is there already."""
    match payload:
        case Json(text):
            to.json = text
        case Message(type_url, value):
            to.message.type_url = type_url
            to.message.value = value
        case Opaque(data, content_type):
            to.opaque.SetInParent()  # also when both of its fields are empty
            to.opaque.data = data
            to.opaque.content_type = content_type
        case _:
            assert_never(payload)


def error_from_wire(message: pb.Error) -> Error:
    """Return an error as it is."""
    data = payload_from_wire(message.data) if message.HasField("data") else None
    return Error(message.code, message.message, message.participant, data)


def set_error(to: pb.Error, error: Error) -> None:
    """Write an error into a field that is there already."""
    to.code = error.code
    to.message = error.message
    to.participant = error.participant
    if error.data is not None:
        set_payload(to.data, error.data)


def related_services_from_wire(messages: Iterable[pb.RelatedService]) -> tuple[RelatedService, ...]:
    """Return related services as they are."""
    return tuple(RelatedService(message.name, message.reference) for message in messages)


def related_services_to_wire(services: Iterable[RelatedService]) -> list[pb.RelatedService]:
    """Return messages for related services."""
    return [pb.RelatedService(name=service.name, reference=service.reference) for service in services]
