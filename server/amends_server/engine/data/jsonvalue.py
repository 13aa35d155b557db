"""JSON as the engine takes it: checked when it is read, so that whatever was read can be written again."""

from __future__ import annotations

import json

import msgspec

from amends_server.engine.payload import Json

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

DEPTH_MAX = 64
"""How deep JSON may nest: deeper is hostile, and Python's parser would hit its own limit."""

_decode = msgspec.json.Decoder().decode
"""Builds the value, because that alone finds what cannot be written again: half surrogates, numbers out of range."""


_TOO_DEEP = f"JSON may nest {DEPTH_MAX} levels deep at the most."


class TemplateError(Exception):
    """A template that cannot be read, or has no value here. The text says which part and what is allowed."""


def parse_json(text: str) -> JsonValue:
    """Read a JSON text.

    :raises TemplateError: if it is not valid, nests deeper than DEPTH_MAX, or holds half a character.
    """
    try:
        value: JsonValue = _decode(text)
    except msgspec.MsgspecError as error:
        raise TemplateError(f"This is not valid JSON (RFC 8259): {error}.") from None
    except RecursionError:
        raise TemplateError(_TOO_DEEP) from None
    # Each level takes a bracket, so few brackets are proof enough.
    if text.count("[") + text.count("{") > DEPTH_MAX and _depth_exceeds(value, DEPTH_MAX):
        raise TemplateError(_TOO_DEEP)
    return value


def to_json(value: JsonValue) -> Json:
    """Write a value.

    :raises TemplateError: if it holds a number that JSON cannot hold.
    """
    try:
        return Json(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise TemplateError("The value holds a number that JSON cannot hold.") from None


def _depth_exceeds(value: JsonValue, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value)
    return False
