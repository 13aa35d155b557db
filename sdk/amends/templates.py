"""Turning the requests that a saga's author writes into JSON templates."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from amends._foreign import Model
from amends.errors import DefinitionError
from amends.payloads import Opaque
from amends.references import Origin, Reference, origin_of
from amends.shapes import is_sealed, pydantic_fields

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
_MARK = "${"


@dataclass(frozen=True, slots=True)
class Template:
    """A template for the wire, and the origins of what it refers to."""

    text: str
    origins: tuple[Origin, ...]


def template_of(value: object, *, name: str) -> Template:
    """Turn a request, in which references may stand, into a template. `name` is what it is called in errors.

    :raises DefinitionError: if it holds what JSON or a template cannot.
    """
    writer = _Writer()
    tree = writer.write(value, name, whole=True)
    return Template(json.dumps(tree, ensure_ascii=False, separators=(",", ":")), tuple(writer.origins))


@dataclass(slots=True)
class _Writer:
    origins: list[Origin] = field(default_factory=list[Origin])

    def write(self, value: object, path: str, *, whole: bool = False) -> Json:
        if isinstance(value, Reference):
            return self._reference(origin_of(value), path, whole=whole)
        if isinstance(value, Message):
            value = cast("object", json_format.MessageToDict(value))  # some messages are a text in JSON
        parts = _parts(value, path)
        if isinstance(parts, dict):
            return {key: self.write(each, f"{path}.{key}") for key, each in parts.items()}
        if isinstance(parts, list):
            return [self.write(each, f"{path}[{index}]") for index, each in enumerate(parts)]
        return _leaf(value, path)

    def _reference(self, origin: Origin, path: str, *, whole: bool) -> Json:
        if is_sealed(origin.type) and not whole:
            raise DefinitionError(f"{path}: {origin.path} is not JSON and cannot be a part of other data.")
        self.origins.append(origin)
        return f"{_MARK}{origin.path}}}"


def _parts(value: object, path: str) -> dict[str, object] | list[object] | None:
    """The parts of a value by their names in JSON, or in order; None if it has no parts."""
    if isinstance(value, Opaque):
        raise DefinitionError(f"{path}: opaque bytes cannot stand in a definition.")
    if isinstance(value, Mapping):
        return _entries(cast("Mapping[object, object]", value), path)
    if isinstance(value, list | tuple):
        return list(cast("list[object]", value))
    if isinstance(value, msgspec.Struct):
        return _struct_parts(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: cast("object", getattr(value, each.name)) for each in dataclasses.fields(value)}
    names = pydantic_fields(type(value))
    return None if names is None else _model_parts(value, names, path)


def _entries(entries: Mapping[object, object], path: str) -> dict[str, object]:
    for key in entries:
        if isinstance(key, Reference) or not isinstance(key, str):
            raise DefinitionError(f"{path}: the key {key!r} must be a text.")
    return {cast("str", key): value for key, value in entries.items()}


def _struct_parts(struct: msgspec.Struct) -> dict[str, object] | list[object]:
    config = struct.__struct_config__
    values = [cast("object", getattr(struct, name)) for name in struct.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    named = zip(struct.__struct_encode_fields__, values, strict=True)
    tag: dict[str, object] = {} if config.tag_field is None else {config.tag_field: config.tag}
    return tag | {name: value for name, value in named if value is not msgspec.UNSET}


def _model_parts(model: object, names: Mapping[str, str], path: str) -> dict[str, object]:
    missing = [name for name in names if name not in vars(model)]
    if missing:
        raise DefinitionError(f"{path}: the field {missing[0]!r} of {type(model).__name__} has no value.")
    parts = {names[name]: cast("object", value) for name, value in vars(model).items() if name in names}
    if any(_holds_reference(value, path) for value in parts.values()):
        return parts
    # a model that is complete knows best how it is written: it may have serialisers of its own
    return cast("dict[str, object]", json.loads(cast("Model", model).model_dump_json(by_alias=True)))


def _holds_reference(value: object, path: str) -> bool:
    if isinstance(value, Reference):
        return True
    parts = _parts(value, path)
    return any(_holds_reference(each, path) for each in (parts.values() if isinstance(parts, dict) else parts or ()))


def _leaf(value: object, path: str) -> Json:
    if isinstance(value, str):
        return _literal(str(value), path)
    if isinstance(value, float) and not math.isfinite(value):
        raise DefinitionError(f"{path}: {value!r} is a number that JSON cannot hold.")
    try:
        plain = cast("object", msgspec.to_builtins(value, order="deterministic"))
    except TypeError as error:
        raise DefinitionError(f"{path}: {type(value).__name__} cannot be written as JSON: {error}") from None
    if isinstance(plain, str):
        return _literal(plain, path)
    if isinstance(plain, list):
        return [_leaf(each, path) for each in cast("list[object]", plain)]
    return cast("Json", plain)


def _literal(text: str, path: str) -> str:
    """Escape a text that would be taken for an expression."""
    if text.startswith(_MARK):
        return f"${text}"
    if _MARK in text:
        raise DefinitionError(f"{path}: a text may hold `{_MARK}` at its beginning only: {text!r}")
    return text
