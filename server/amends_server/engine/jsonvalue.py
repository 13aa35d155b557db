"""JSON as the engine takes it: checked when it is read, so that whatever was read can be written again."""

from __future__ import annotations

import json
import re

from amends_server.engine.payload import Json

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

DEPTH_MAX = 64
"""How deep JSON may nest: deeper is hostile, and Python's parser would hit its own limit."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class TemplateError(Exception):
    """A template that cannot be read, or has no value here. The text says which part and what is allowed."""


def parse_json(text: str) -> JsonValue:
    """Read a JSON text.

    :raises TemplateError: if it is not valid, nests deeper than DEPTH_MAX, or holds half a character.
    """
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"This is not valid JSON: {error}.") from None
    if _depth_exceeds(value, DEPTH_MAX):
        raise TemplateError(f"JSON may nest {DEPTH_MAX} levels deep at the most.")
    if _HALF.search(text):
        _refuse_halves(value)
    return value


def to_json(value: JsonValue) -> Json:
    """Write a value.

    :raises TemplateError: if it holds a number that JSON cannot hold.
    """
    try:
        return Json(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise TemplateError("The value holds a number that JSON cannot hold.") from None


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not a JSON value")


def _refuse_halves(value: JsonValue) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise TemplateError("JSON that holds a lone surrogate is no Unicode text.") from None


def _depth_exceeds(value: JsonValue, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value)
    return False
