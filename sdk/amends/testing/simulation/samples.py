"""Data that meet a JSON Schema, for simulated actions and inputs of which nobody says what they give."""

from __future__ import annotations

from typing import cast

LEVELS_MAX = 8
"""How deep a sample nests: a schema that refers to itself has no end."""

_OF_TYPE: dict[object, object] = {"string": "x", "integer": 1, "number": 1, "boolean": True, "null": None}

Tree = dict[str, object]


def sample(schema: object, root: object, levels: int = LEVELS_MAX) -> object:
    """Return a value for a schema inside of `root`, as well as that can be told without trying."""
    if not isinstance(schema, dict) or not levels:
        return {} if schema is True else None
    of = cast(Tree, schema)
    for word in ("const", "default"):
        if word in of:
            return of[word]
    for word in ("enum", "examples"):
        if isinstance(of.get(word), list) and of[word]:
            return cast("list[object]", of[word])[0]
    if isinstance(of.get("$ref"), str):
        return sample(_target(root, str(of["$ref"])), root, levels - 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(of.get(word), list) and of[word]:
            return sample(cast("list[object]", of[word])[0], root, levels - 1)
    return _of_type(of, root, levels)


def _of_type(of: Tree, root: object, levels: int) -> object:
    said = of.get("type")
    kind = next(iter(cast("list[object]", said)), None) if isinstance(said, list) else said
    if kind == "object" or "properties" in of:
        properties = cast(Tree, of.get("properties") or {})
        return {name: sample(inner, root, levels - 1) for name, inner in properties.items()}
    if kind == "array":
        return [sample(of.get("items"), root, levels - 1)] if of.get("minItems") else []
    if kind in ("integer", "number") and isinstance(of.get("minimum"), int | float):
        return of["minimum"]
    if kind == "string" and isinstance(of.get("minLength"), int):
        return "x" * cast(int, of["minLength"])
    return _OF_TYPE.get(kind, {})


def _target(root: object, reference: str) -> object:
    place = root
    for part in reference.split("/")[1:]:
        place = cast(Tree, place).get(part.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return place
