"""The parts of a value that an expression reads: what it costs to evaluate goes by them, and by nothing beside them."""

from __future__ import annotations

from amends_server.engine.data.jsonvalue import DEPTH_MAX, JsonValue

Names = tuple[str, ...]

Parts = dict[str, "Parts"]
"""Which fields of a value are read, and of each again which; without any, all of it is."""


def parts_of(read: set[Names]) -> Parts:
    """Return the parts that lie at the ends of these ways of names. No JSON is deeper than those names that count."""
    return _parts_of({names[:DEPTH_MAX] for names in read})


def _parts_of(read: set[Names]) -> Parts:
    if () in read:
        return {}
    firsts = sorted({names[0] for names in read})
    return {first: _parts_of({names[1:] for names in read if names[0] == first}) for first in firsts}


def pick(value: JsonValue, parts: Parts) -> JsonValue:
    """Return a value without the fields that nobody reads."""
    if not parts or not isinstance(value, dict):
        return value
    return {name: pick(value[name], inner) for name, inner in parts.items() if name in value}


def size(value: JsonValue, enough: int) -> int:
    """Count characters and items, and stop when there are enough."""
    if isinstance(value, str):
        return len(value) + 1
    items: list[JsonValue] = []
    total = 1
    if isinstance(value, dict):
        total += sum(map(len, value))
        items = list(value.values())
    elif isinstance(value, list):
        items = value
    for item in items:
        total += size(item, enough - total)
        if total > enough:
            break
    return total


def longest(value: JsonValue) -> int:
    """Return the length of the longest list or object."""
    if isinstance(value, dict):
        return max([len(value), *map(longest, value.values())])
    if isinstance(value, list):
        return max([len(value), *map(longest, value)])
    return 0
