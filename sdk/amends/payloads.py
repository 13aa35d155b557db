"""Payloads: Python values to what sagas carry on the wire, and back."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

import msgspec
from google.protobuf.message import DecodeError, Message

from amends._foreign import (
    Misfit,
    from_builtins,
    is_message,
    is_model,
    parsed_message,
    schema_of_foreign,
    to_builtins,
    validated_model,
    with_definitions_on_top,
)
from amends.errors import PayloadError
from amends.v1 import payload_pb2

T = TypeVar("T")
Decoder = Callable[[payload_pb2.Payload], typing.Any]

# What encoders and decoders raise for data that does not fit; RecursionError comes from data that is nested too deep.
_MISFITS = (ValueError, TypeError, OverflowError, RecursionError, NotImplementedError, DecodeError)
_CACHED_TYPES_MAX = 1024  # more types than a program has; bounds programs that make types as they run
# The same value must be the same bytes in every process, or a repeated start would be one with other content.
_encoder = msgspec.json.Encoder(enc_hook=to_builtins, order="deterministic")


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes that only the users can read, for example encrypted ones. `content_type` is a media type."""

    data: bytes
    content_type: str = "application/octet-stream"


def encode(value: object) -> payload_pb2.Payload:
    """Turn a value into a payload; None into one without data. A `Payload` is passed as it is.

    :raises PayloadError: the value is of a kind that has no place in a payload.
    """
    try:
        match value:
            case None:
                return payload_pb2.Payload()
            case payload_pb2.Payload():
                return value
            case Opaque(data, content_type):
                return payload_pb2.Payload(opaque=payload_pb2.OpaquePayload(data=data, content_type=content_type))
            case Message():
                return _packed(value)
            case _:
                text = _json(value)
                if b"null" in text:
                    _refuse_non_finite(value)
                return payload_pb2.Payload(json=text.decode())
    except _MISFITS as error:
        raise PayloadError(f"{type(value).__qualname__} cannot be a payload: {_redacted(error)}") from None


def decode(payload: payload_pb2.Payload, type: type[T]) -> T:
    """Turn a payload into a value of the type. A payload without data is a JSON null.

    :raises PayloadError: the payload is not what the type says; the message names the path, never the data.
    """
    kind: object = type  # to mypy a type is not Hashable
    try:
        value: T = _decoder(kind)(payload)
    except _MISFITS as error:
        raise PayloadError(f"{_name(type)}: {_redacted(error)}") from None
    return value


def encode_as(value: object, type: object) -> payload_pb2.Payload:
    """Turn a value into a payload that can be read as the type; types that nobody can read are not checked.

    :raises PayloadError: the value has no place in a payload, or is not of the type.
    """
    payload = encode(value)
    try:
        decoder = _decoder(type)
    except (*_MISFITS, NameError):
        return payload
    try:
        decoder(payload)
    except _MISFITS as error:
        raise PayloadError(f"{_name(type)}: {_redacted(error)}") from None
    return payload


def json_schema(type: object) -> str:
    """The JSON Schema of a type; empty if there is none, as for protobuf messages and opaque bytes."""
    bare, _ = _without_none(type)
    if bare is Opaque or is_message(bare):
        return ""
    try:
        schema = msgspec.json.schema(type, schema_hook=schema_of_foreign)
    except (*_MISFITS, NameError):  # the annotations of a type may name what only type checkers import
        return ""
    return json.dumps(with_definitions_on_top(schema)) if schema else ""


@lru_cache(_CACHED_TYPES_MAX)
def _decoder(kind: Hashable) -> Decoder:
    needed, may_be_none = _without_none(kind)
    decoder = _decoder_of_needed(needed)
    if decoder is None:
        return _json_decoder(kind)
    return _or_none(decoder) if may_be_none else decoder


def _decoder_of_needed(kind: object) -> Decoder | None:
    if kind is payload_pb2.Payload:
        return lambda payload: payload
    if kind is Opaque:
        return _opaque
    if is_message(kind):
        return lambda payload: _message(kind, payload)
    if is_model(kind):
        return lambda payload: validated_model(kind, _json_text(payload))
    return None


def _json_decoder(kind: object) -> Decoder:
    wanted = typing.Any if kind is object else kind  # to msgspec an object is something foreign
    decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(cast("type[object]", wanted), dec_hook=from_builtins)
    read = decoder.decode

    def decode_json(payload: payload_pb2.Payload) -> object:
        return read(payload.json if payload.WhichOneof("kind") == "json" else _json_text(payload))

    return decode_json


def _or_none(decoder: Decoder) -> Decoder:
    return lambda payload: None if _is_null(payload) else decoder(payload)


def _without_none(kind: object) -> tuple[object, bool]:
    """`X` of `X | None`, and whether it was there; any other type as it is. What `Annotated` adds is left out."""
    if typing.get_origin(kind) is typing.Annotated:
        return _without_none(typing.get_args(kind)[0])
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    needed = [argument for argument in typing.get_args(kind) if argument is not types.NoneType]
    return (_without_none(needed[0])[0], True) if len(needed) == 1 else (kind, False)


def _is_null(payload: payload_pb2.Payload) -> bool:
    return payload.WhichOneof("kind") is None or (payload.WhichOneof("kind") == "json" and payload.json == "null")


def _json_text(payload: payload_pb2.Payload) -> str:
    match payload.WhichOneof("kind"):
        case "json":
            return payload.json
        case None:
            return "null"
        case "message":
            raise Misfit(f"Expected JSON, got the protobuf message `{payload.message.TypeName()}`")
        case "opaque":
            raise Misfit(f"Expected JSON, got opaque bytes of type `{payload.opaque.content_type}`")


def _message(kind: type[Message], payload: payload_pb2.Payload) -> Message:
    if payload.WhichOneof("kind") != "message":
        return parsed_message(kind, _json_text(payload))
    message = kind()
    if not payload.message.Unpack(message):
        raise Misfit(f"Got the protobuf message `{payload.message.TypeName()}`")
    return message


def _opaque(payload: payload_pb2.Payload) -> Opaque:
    if payload.WhichOneof("kind") != "opaque":
        raise Misfit("Expected opaque bytes")
    return Opaque(payload.opaque.data, payload.opaque.content_type)


def _packed(message: Message) -> payload_pb2.Payload:
    payload = payload_pb2.Payload()
    payload.message.Pack(message, deterministic=True)  # the same message must be the same bytes in every attempt
    return payload


def _json(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except TypeError:  # it sorts the keys of objects only if they are texts, and not numbers, dates or UUIDs
        return _encoder.encode(_with_texts_as_keys(value))


def _with_texts_as_keys(value: object) -> object:
    """:raises Misfit: keys that differ would be one, as 1 and "1"."""
    plain: object = msgspec.to_builtins(value, str_keys=True, order="deterministic", enc_hook=_read_if_json)
    if sum(1 for _ in _parts(plain)) < sum(1 for _ in _parts(msgspec.to_builtins(value, enc_hook=_read_if_json))):
        raise Misfit("Two keys of an object are one text")
    return plain


def _read_if_json(value: object) -> object:
    plain = value if isinstance(value, msgspec.Raw) else to_builtins(value)
    return msgspec.json.decode(plain) if isinstance(plain, msgspec.Raw) else plain


def _name(kind: object) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind)


def _refuse_non_finite(value: object) -> None:
    """:raises Misfit: there is a number that JSON does not have, and that would be written as null."""
    parts = _parts(msgspec.to_builtins(value, enc_hook=_plain))
    if any(isinstance(each, float) and not math.isfinite(each) for each in parts):
        raise Misfit("JSON has no infinity and no NaN")


def _parts(value: object) -> Iterator[object]:
    """The value and all that is in it, but for the keys of objects."""
    left = [value]
    while left:
        each = left.pop()
        yield each
        if isinstance(each, dict):
            left += cast("dict[object, object]", each).values()
        elif isinstance(each, list | tuple | set | frozenset):
            left += cast("list[object]", each)


def _plain(value: object) -> object:
    plain = value if isinstance(value, msgspec.Raw) else to_builtins(value)
    return None if isinstance(plain, msgspec.Raw) else plain  # what is JSON already speaks for itself


def _redacted(error: BaseException) -> str:
    """What an error says, without the data: payloads must not get into errors and logs."""
    if isinstance(error, Misfit) or isinstance(error.__cause__, Misfit):
        return str(error)
    if isinstance(error, RecursionError):
        return "Nested beyond the depth that can be read or written"
    where = re.search(r" - at `(key in )?\$[\w.\[\]]*`$", str(error))
    return (_said_by_msgspec(error) or f"Does not fit ({type(error).__name__})") + (where[0] if where else "")


def _said_by_msgspec(error: BaseException) -> str:
    """Its own text without the path; none if it passes on what the code of a type says, which may be anything."""
    if not isinstance(error, msgspec.MsgspecError) or error.__cause__ is not None:
        return ""
    if "unknown field" in str(error):
        return "Object contains an unknown field"
    return re.split(r" - at `|['\"]", str(error))[0].rstrip()
