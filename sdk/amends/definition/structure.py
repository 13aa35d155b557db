"""The structure of the data that a saga's author writes: its parts, by the names that they have in JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import cast

import msgspec

from amends._foreign import Model
from amends.definition.shapes import pydantic_fields
from amends.definition.terms import Held
from amends.errors import DefinitionError
from amends.payloads import Opaque


def parts_of(value: object, path: str) -> dict[str, object] | list[object] | None:
    """The parts of a value by their names in JSON, or in order; None if it has no parts. `path` names it in errors.

    :raises DefinitionError: if it has no place in a definition.
    """
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
        if not isinstance(key, str):
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
    if isinstance(value, Held):
        return True
    parts = parts_of(value, path)
    return any(_holds_reference(each, path) for each in (parts.values() if isinstance(parts, dict) else parts or ()))
