"""Types that msgspec does not know, inside JSON: protobuf messages, and models that speak for themselves (pydantic)."""

from __future__ import annotations

import json
import re
from typing import Protocol, TypeGuard, cast

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message


class Misfit(ValueError):
    """Data that does not fit, in words that do not quote it."""


class Model(Protocol):
    """What is used of a pydantic model. It is known by its methods, so that pydantic need not be installed."""

    def model_dump_json(self, *, by_alias: bool) -> str: ...
    @classmethod
    def model_validate_json(cls, json_data: str | bytes) -> object: ...
    @classmethod
    def model_json_schema(cls) -> dict[str, object]: ...


class _ErrorList(Protocol):
    def errors(self) -> list[dict[str, object]]: ...


def is_model(kind: object) -> TypeGuard[type[Model]]:
    return isinstance(kind, type) and hasattr(kind, "model_dump_json") and hasattr(kind, "model_validate_json")


def is_message(kind: object) -> TypeGuard[type[Message]]:
    return isinstance(kind, type) and issubclass(kind, Message)


def validated_model(kind: type[Model], text: str | bytes) -> object:
    """Read a model. :raises Misfit: what does not fit, and where, but not the data itself."""
    try:
        return kind.model_validate_json(text)
    except ValueError as error:
        raise Misfit(_model_findings(error)) from None


def parsed_message(kind: type[Message], text: str | bytes) -> Message:
    """Read a message from JSON. :raises Misfit: what does not fit, and where, but not the data itself."""
    try:
        return json_format.Parse(text, kind())
    except (json_format.ParseError, RecursionError) as error:
        field = re.search(r"Failed to parse (\w+) field|no field named \"([^\"]*)\"", str(error))
        where = f" - at `$.{field[1] or field[2]}`" if field else ""
        raise Misfit(f"Expected the protobuf message `{kind.DESCRIPTOR.full_name}`{where}") from None


def to_builtins(value: object) -> object:
    """The `enc_hook` of msgspec: what to write instead of a foreign value."""
    if isinstance(value, Message):
        return json_format.MessageToDict(value)
    if is_model(type(value)):
        return msgspec.Raw(cast(Model, value).model_dump_json(by_alias=True).encode())
    raise Misfit(f"{type(value).__qualname__} has no place in a payload")


def from_builtins(kind: type, value: object) -> object:
    """The `dec_hook` of msgspec: a foreign value from what was written instead of it."""
    if kind is object:  # for which msgspec knows `Any` only
        return value
    if is_message(kind):
        return parsed_message(kind, json.dumps(value))
    if is_model(kind):
        return validated_model(kind, msgspec.json.encode(value))
    raise Misfit(f"{kind.__qualname__} has no place in a payload")


def schema_of_foreign(kind: type) -> dict[str, object]:
    """The `schema_hook` of msgspec. :raises Misfit: a model has none."""
    if is_model(kind):
        try:
            return kind.model_json_schema()
        except Exception as error:  # what pydantic raises cannot be named here, and a model may have code of its own
            raise Misfit(f"{kind.__qualname__} has no schema") from error
    # any JSON, for some messages are a text there
    return {"title": kind.DESCRIPTOR.full_name} if is_message(kind) else {}


def with_definitions_on_top(schema: dict[str, object]) -> dict[str, object]:
    """Put the definitions that models bring along to where references look for them: at the root of the schema.

    :raises Misfit: two models of one name differ.
    """
    found: dict[str, object] = {}
    rest = cast("dict[str, object]", _without_definitions(schema, found))
    return {**rest, "$defs": found} if found else rest


def _without_definitions(value: object, found: dict[str, object]) -> object:
    if isinstance(value, list):
        return [_without_definitions(each, found) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, object]", value)
    definitions = cast("dict[str, object]", fields.get("$defs", {}))
    for name, definition in definitions.items():
        plain = _without_definitions(definition, found)
        if found.setdefault(name, plain) != plain:
            raise Misfit(f"two models are called {name}")
    return {name: _without_definitions(each, found) for name, each in fields.items() if name != "$defs"}


def _model_findings(error: ValueError) -> str:
    findings = cast(_ErrorList, error).errors() if hasattr(error, "errors") else []
    return "; ".join(_finding(finding) for finding in findings) or "Not valid"


def _finding(finding: dict[str, object]) -> str:
    where = "".join(
        f"[{key}]" if isinstance(key, int) else f".{key}" for key in cast(tuple[object, ...], finding["loc"])
    )
    return f"{finding['type']} - at `${where}`"  # the message may quote the data
