"""Turning the requests that a saga's author writes into JSON templates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import cast

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from amends.definition.shapes import is_sealed
from amends.definition.structure import parts_of
from amends.definition.terms import Held, Origin, Term, held
from amends.errors import DefinitionError

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
        if isinstance(value, Held):
            return self._reference(held(value), path, whole=whole)
        if isinstance(value, Message):
            value = cast("object", json_format.MessageToDict(value))  # some messages are a text in JSON
        parts = parts_of(value, path)
        if isinstance(parts, dict):
            return {key: self.write(each, f"{path}.{key}") for key, each in parts.items()}
        if isinstance(parts, list):
            return [self.write(each, f"{path}[{index}]") for index, each in enumerate(parts)]
        return _leaf(value, path)

    def _reference(self, term: Term, path: str, *, whole: bool) -> Json:
        if is_sealed(term.type) and not whole:
            raise DefinitionError(f"{path}: {term.text} is not JSON and cannot be a part of other data.")
        self.origins.extend(term.origins)
        return f"{_MARK}{term.text}}}"


def _leaf(value: object, path: str) -> Json:
    if isinstance(value, str):
        return _literal(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise DefinitionError(f"{path}: {value!r} is a number that JSON cannot hold.")
    try:
        plain = cast("object", msgspec.to_builtins(value, order="deterministic"))
    except TypeError as error:
        raise DefinitionError(f"{path}: {type(value).__name__} cannot be written as JSON: {error}") from None
    if isinstance(plain, str):
        return _literal(plain)
    if isinstance(plain, list):
        return [_leaf(each, path) for each in cast("list[object]", plain)]
    return cast("Json", plain)


def _literal(text: str) -> str:
    """Escape what would be taken for an expression."""
    return text.replace(_MARK, f"${_MARK}")
