"""JSON Schemas (https://json-schema.org): what data must meet, and what is known of its fields before there is any.

References lead inside of the schema only: nothing is ever fetched. Patterns run in linear time. What is said of data
that does not fit never quotes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, cast

import jsonschema_rs

from amends_server.engine.data.bounds import PATTERN_BYTES_MAX, Bounds, bounds_of
from amends_server.engine.data.expressions import Type
from amends_server.engine.data.jsonvalue import JsonValue, TemplateError, parse_json
from amends_server.engine.payload import Json, Payload
from amends_server.engine.value import dataclass

_MASK = "The value"
_TYPES = {"integer": Type.INT, "string": Type.STRING, "boolean": Type.BOOL}
"""Not `number`: JSON writes 5 for 5.0, which CEL takes for an int."""

REFERENCES_MAX = 16
"""How many references to follow from one field: more is a circle."""

LISTS_MAX = 8
"""Lists of lists whose type is told: a list of itself has no end, and CEL takes no more than 13."""

_COMBINED = frozenset({"anyOf", "oneOf", "allOf", "if", "not", "$dynamicRef", "patternProperties"})

_Fragment = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Violation:
    """Where data do not fit, as a path from the root such as `lines[0].sku` ("" for the whole), and what is wanted."""

    path: str
    message: str

    def at(self, root: str) -> str:
        """Return the place as a path that begins with the name of the data."""
        return f"{root}.{self.path}" if self.path and self.path[0] != "[" else f"{root}{self.path}"


@dataclass(frozen=True, slots=True)
class Field:
    """What a schema says of a place in the data: its type, if that is known and the place is always there.

    `unknown` is the name at which a path leaves the schema, and `known` are the names that there are.
    """

    type: Type | None = None
    depth: int = 0
    unknown: str | None = None
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A schema that was read."""

    tree: JsonValue
    validator: jsonschema_rs.Validator
    bounds: Bounds

    def breach(self, payload: Payload | None) -> Violation | None:
        """Return the first thing that is wrong with a payload; None, which is no data, stands for null."""
        if payload is not None and not isinstance(payload, Json):
            return Violation("", "it is not JSON")
        try:
            return self.violation(None if payload is None else payload.text)
        except TemplateError as problem:
            return Violation("", f"it cannot be checked: {str(problem).removesuffix('.')}")

    def violation(self, text: str | None) -> Violation | None:
        """Return the first thing that is wrong with a JSON text; None, which is no data, stands for null.

        :raises TemplateError: if the text is no JSON that the engine takes, or it would take too long.
        """
        value, length = (None, 1) if text is None else (parse_json(text), len(text))
        self.bounds.check(value, length)
        if self.validator.is_valid(value):
            return None
        if not self.bounds.explains(value, length):
            return Violation("", "the value does not fit, and is too large to say where")
        try:
            self.validator.validate(value)
        except jsonschema_rs.ValidationError as found:
            return Violation(_path(found.instance_path), found.message)
        raise AssertionError("what is not valid has an error")

    def field(self, names: Sequence[str]) -> Field:
        """Return what is known of the place that these names lead to, or of the first on the way that is no object."""
        fragment, always = self._resolve(self.tree), True
        for depth, name in enumerate(names):
            properties = fragment.get("properties")
            if not _is_object(fragment) or not isinstance(properties, dict):
                return Field(self._type(fragment) if always else None, depth)
            if name not in properties:
                closed = "additionalProperties" not in fragment or fragment["additionalProperties"] is False
                return Field(depth=depth, unknown=name, known=tuple(properties)) if closed else Field(depth=depth)
            required = fragment.get("required")
            always = always and isinstance(required, list) and name in required
            fragment = self._resolve(properties[name])
        return Field(self._type(fragment) if always else None, len(names))

    def _type(self, fragment: _Fragment, levels: int = LISTS_MAX) -> Type | None:
        kind = fragment.get("type")
        if _COMBINED & fragment.keys() or not isinstance(kind, str):
            return None
        if kind == "array":
            items = fragment.get("items") if levels else None
            inner = self._type(self._resolve(items), levels - 1) if isinstance(items, dict) else None
            return Type.List(inner or Type.DYN)
        return _TYPES.get(kind)

    def _resolve(self, fragment: JsonValue) -> _Fragment:
        for _ in range(REFERENCES_MAX):
            if not isinstance(fragment, dict):
                return {}
            reference = fragment.get("$ref")
            if not isinstance(reference, str):
                return fragment
            fragment = _point(self.tree, reference)
        return {}


def parse_schema(text: str) -> Schema:
    """Read a schema.

    :raises TemplateError: if it is none, refers to something outside of itself, or could take too long (see `bounds`).
    """
    tree = parse_json(text)
    if not isinstance(tree, dict | bool):
        raise TemplateError("A JSON Schema is an object, or true or false.")
    bounds = bounds_of(tree, len(text))
    try:
        validator = jsonschema_rs.validator_for(
            cast("dict[str, object] | bool", tree),
            retriever=_refuse_to_fetch,
            mask=_MASK,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES_MAX),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as problem:
        raise TemplateError(f"This is no sound JSON Schema: {_first_line(problem)}.") from None
    return Schema(tree, validator, bounds)


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"put `{uri}` into the schema itself, under `$defs`")


def _first_line(problem: Exception) -> str:
    where = _path(problem.instance_path) if isinstance(problem, jsonschema_rs.ValidationError) else ""
    first = str(problem).split("\n", 1)[0].rstrip(".")
    return f"{first} (at `{where}`)" if where else first


def _path(parts: Sequence[str | int]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _is_object(fragment: _Fragment) -> bool:
    return fragment.get("type") == "object" and not _COMBINED & fragment.keys()


def _point(tree: JsonValue, reference: str) -> JsonValue:
    """Follow a reference inside of the schema; None if it is of a kind that is not looked into here."""
    if reference == "#":
        return tree
    if not reference.startswith("#/"):
        return None
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
