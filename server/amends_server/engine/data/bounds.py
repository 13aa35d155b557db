"""What checking data against a JSON Schema may cost, told from the schema before there is any data.

A schema can be short and take for ever: branches that double at each `$ref`, one that follows itself down into the data
with two hands, or a pattern that unfolds. The library that checks cannot be interrupted, so that a schema's cost is
bounded before: what is out of bounds by itself is refused with its definition, and what depends on the data before they
are checked.

The cost is that of the way from the root of the data to any one place: all that the schema looks at on this way, where
subschemas that apply to the same place add up, and of places beside each other the dearest counts. Times the size of
the data, that bounds all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import jsonschema_rs

from amends_server.engine.data.jsonvalue import DEPTH_MAX, JsonValue, TemplateError

SCHEMA_LENGTH_MAX = 64 * 1024
"""Characters of a schema: those of large programs have a few thousand."""

SUBSCHEMAS_MAX = 2_000
"""Subschemas that apply somewhere, each counted once however often it is referred to."""

STACK_MAX = 32
"""Subschemas that apply to one place, one inside of the other: the library's stack grows with each."""

PATTERNS_MAX = 100
"""Regular expressions of a schema: each is compiled, which takes up to some milliseconds."""

PATTERN_BYTES_MAX = 256 * 1024
"""Of a compiled regular expression. Its time is linear in the text, and in this."""

WORK_MAX = 1 << 34
"""Cost times characters of the data: about two seconds."""

LEAST_LENGTH = 1_000
"""Characters of data that any schema must be able to check, if they do not nest."""

EXPLAIN_MAX = 1 << 24
"""The same for saying what is wrong with data that fit none of several branches, which takes far longer."""

LOOK = 64
"""Cost of a subschema."""

VALUE = 4
"""Cost of a value that data are compared with, such as one of an `enum`."""

_PATTERN_SIZES = tuple(PATTERN_BYTES_MAX >> shift for shift in range(10, -1, -2))
_HERE_LISTS = ("allOf", "anyOf", "oneOf")
_HERE_MAPS = ("dependentSchemas", "dependencies")
_HERE = ("not", "if", "then", "else")
_BRANCHES = frozenset({"anyOf", "oneOf"})
_BELOW = {
    "properties", "patternProperties", "additionalProperties", "propertyNames",
    "items", "prefixItems", "additionalItems", "contains",
}  # fmt: skip
_ELSEWHERE = {"$defs", "definitions", "default", "examples", "title", "description", "$comment", "$schema", "$id"}
_SUBSCHEMAS = {*_HERE_LISTS, *_HERE_MAPS, *_HERE, *_BELOW, *_ELSEWHERE}
_REFUSED = {
    "unevaluatedProperties": "say `additionalProperties` where the properties are",
    "unevaluatedItems": "say `items` where the first ones are",
    "$dynamicRef": "refer by `$ref`",
    "$recursiveRef": "refer by `$ref`",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a schema costs: `costs` by the depth of the data. `branches`: it has alternatives."""

    costs: tuple[int, ...]
    branches: bool
    patterns: frozenset[str]

    def check(self, value: JsonValue, length: int) -> None:
        """Do nothing for data of which the text has that length, if they may be checked.

        :raises TemplateError: if that could take too long.
        """
        if self.costs[-1] * length > WORK_MAX and self._cost(value) * length > WORK_MAX:
            raise TemplateError(
                "The data are too large, or nest too deep, to be checked against their schema: pass on less, or a"
                " reference, or have a simpler schema."
            )

    def explains(self, value: JsonValue, length: int) -> bool:
        """Tell whether there is time to say what is wrong with data."""
        return not self.branches or self._cost(value) * length <= EXPLAIN_MAX

    def _cost(self, value: JsonValue) -> int:
        return self.costs[min(_depth(value), len(self.costs) - 1)]


@dataclass(slots=True)
class _Subschema:
    """What applies to the same place, and to those below: by name or position, of which one counts, and to any."""

    own: int
    here: list[int] = field(default_factory=list[int])
    one_of_names: list[int] = field(default_factory=list[int])
    any_name: list[int] = field(default_factory=list[int])
    one_of_items: list[int] = field(default_factory=list[int])
    any_item: list[int] = field(default_factory=list[int])


def bounds_of(tree: JsonValue, length: int) -> Bounds:
    """Return what a schema costs whose text has that length.

    :raises TemplateError: if it is out of bounds for any data.
    """
    if length > SCHEMA_LENGTH_MAX:
        raise TemplateError(f"A schema may have {SCHEMA_LENGTH_MAX} characters at the most, and this one has {length}.")
    walk = _Walk(tree)
    walk.run()
    costs = tuple(_costs(walk.found, _bottom_up(walk.found)))
    if costs[0] * LEAST_LENGTH > WORK_MAX:
        raise TemplateError("The schema looks at one place too often: its branches double, or its enums are large.")
    return Bounds(costs, walk.branches, frozenset(walk.patterns))


class _Walk:
    """Finds the subschemas that apply to something."""

    def __init__(self, tree: JsonValue) -> None:
        self._tree = tree
        self._index: dict[int, int] = {}
        self._left: deque[tuple[_Subschema, dict[str, JsonValue]]] = deque()
        self.found: list[_Subschema] = []
        self.branches = False
        self.patterns: set[str] = set()

    def run(self) -> None:
        """Find all of them."""
        _refuse_ids(self._tree)
        self._add(self._tree)
        while self._left:
            self._read(*self._left.popleft())

    def _add(self, fragment: JsonValue) -> list[int]:
        """Return the place of a subschema; none if it is no subschema, which the library says better."""
        if not isinstance(fragment, dict | bool):
            return []
        if isinstance(fragment, dict) and id(fragment) in self._index:
            return [self._index[id(fragment)]]
        if len(self.found) == SUBSCHEMAS_MAX:
            raise TemplateError(f"A schema may have {SUBSCHEMAS_MAX} subschemas at the most: say less of the data.")
        place = len(self.found)
        self.found.append(_Subschema(LOOK))
        if isinstance(fragment, dict):
            self._index[id(fragment)] = place
            self._left.append((self.found[place], fragment))
        return [place]

    def _all(self, fragments: JsonValue) -> list[int]:
        if isinstance(fragments, dict):
            return [place for each in fragments.values() for place in self._add(each)]
        return [place for each in fragments for place in self._add(each)] if isinstance(fragments, list) else []

    def _read(self, to: _Subschema, of: dict[str, JsonValue]) -> None:
        for keyword, instead in _REFUSED.items():
            if keyword in of:
                raise TemplateError(f"`{keyword}` is not allowed, since its cost has no bound: {instead}.")
        to.own += sum(VALUE * _count(value) for keyword, value in of.items() if keyword not in _SUBSCHEMAS)
        to.own += sum(map(self._pattern_cost, _patterns(of)))
        self.branches = self.branches or not _BRANCHES.isdisjoint(of)
        to.here += self._here(of)
        self._read_below(to, of)

    def _here(self, of: dict[str, JsonValue]) -> Iterator[int]:
        for keyword in (*_HERE_LISTS, *_HERE_MAPS):
            yield from self._all(of.get(keyword))
        for keyword in _HERE:
            yield from self._add(of.get(keyword))
        if isinstance(reference := of.get("$ref"), str):
            yield from self._add(self._point(reference))

    def _read_below(self, to: _Subschema, of: dict[str, JsonValue]) -> None:
        items = of.get("items")
        to.one_of_names += self._all(of.get("properties"))
        to.any_name += self._all(of.get("patternProperties"))
        to.any_name += self._add(of.get("additionalProperties"))
        to.any_name += self._add(of.get("propertyNames"))
        to.one_of_items += self._all(of.get("prefixItems"))
        to.one_of_items += self._all(items) if isinstance(items, list) else []
        to.any_item += self._add(items)
        to.any_item += self._add(of.get("additionalItems"))
        to.any_item += self._add(of.get("contains"))

    def _pattern_cost(self, pattern: str) -> int:
        self.patterns.add(pattern)
        if len(self.patterns) > PATTERNS_MAX:
            raise TemplateError(f"A schema may have {PATTERNS_MAX} patterns at the most: have a step check more.")
        return _pattern_bytes(pattern)

    def _point(self, reference: str) -> JsonValue:
        """Return what a reference leads to."""
        if "%" in reference or (reference != "#" and not reference.startswith("#/")):
            raise TemplateError(
                f"`{reference}` leads out of the schema, or to an anchor, or is encoded: put what is meant under"
                " `$defs`, and refer to it by `#/$defs/…`, with a plain name."
            )
        target = self._tree
        for part in reference.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isascii() and name.isdigit() and int(name) < len(target):
                target = target[int(name)]
            elif isinstance(target, dict) and name in target:
                target = target[name]
            else:
                raise TemplateError(f"`{reference}` leads nowhere in the schema: put what is meant under `$defs`.")
        return target


def _patterns(of: dict[str, JsonValue]) -> Iterator[str]:
    if isinstance(pattern := of.get("pattern"), str):
        yield pattern
    if isinstance(by_pattern := of.get("patternProperties"), dict):
        yield from by_pattern


@lru_cache(maxsize=1_000)
def _pattern_bytes(pattern: str) -> int:
    """Return about how large a regular expression is when it is compiled, by asking the library for the least limit."""
    for size in _PATTERN_SIZES:
        options = jsonschema_rs.RegexOptions(size_limit=size)
        try:
            jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
        except (jsonschema_rs.ValidationError, ValueError):
            continue
        return size
    raise TemplateError(
        f"The pattern `{pattern[:100]}` is no regular expression that runs in linear time, or is too large: do without"
        " lookaround and backreferences, and with smaller numbers of repetitions."
    )


def _refuse_ids(tree: JsonValue) -> None:
    """Refuse what gives a part of the schema a name: what a reference leads to would depend on it."""
    name = "id" if isinstance(tree, dict) and "draft-04" in str(tree.get("$schema")) else "$id"
    left = list(tree.values()) if isinstance(tree, dict) else []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get(name), str):
                raise TemplateError(f"`{name}` is allowed at the root only: refer to parts by `#/$defs/…`.")
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _depth(value: JsonValue) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def _count(value: JsonValue) -> int:
    """Count the values that a value is made of."""
    if isinstance(value, dict | list):
        return 1 + sum(map(_count, value.values() if isinstance(value, dict) else value))
    return 1


def _bottom_up(found: list[_Subschema]) -> list[int]:
    """Order subschemas so that each comes after those that apply to the same place.

    :raises TemplateError: if one applies to the same place as itself, or they stand too deep inside of each other.
    """
    missing, users, stack = [len(each.here) for each in found], [list[int]() for _ in found], [1] * len(found)
    for place, each in enumerate(found):
        for other in each.here:
            users[other].append(place)
    order = [place for place, count in enumerate(missing) if not count]
    for place in order:  # grows while it is read
        for user in users[place]:
            stack[user] = max(stack[user], stack[place] + 1)
            missing[user] -= 1
            if not missing[user]:
                order.append(user)
    if len(order) < len(found):
        raise TemplateError("A part of the schema refers to itself without going into the data: take this `$ref` out.")
    if max(stack) > STACK_MAX:
        raise TemplateError(f"More than {STACK_MAX} subschemas stand inside of each other for one place: use fewer.")
    return order


def _costs(found: list[_Subschema], order: list[int]) -> Iterator[int]:
    """Yield the cost of the root for data of each depth, as long as it grows."""
    below = [0] * len(found)
    for _ in range(DEPTH_MAX + 1):
        costs = [0] * len(found)
        for place in order:
            each = found[place]
            names = max((below[i] for i in each.one_of_names), default=0) + sum(below[i] for i in each.any_name)
            items = max((below[i] for i in each.one_of_items), default=0) + sum(below[i] for i in each.any_item)
            costs[place] = min(WORK_MAX + 1, each.own + sum(costs[i] for i in each.here) + max(names, items))
        yield costs[0]
        if costs == below:
            return
        below = costs
