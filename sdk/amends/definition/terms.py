"""Terms: values that are known only while a saga runs, as texts of CEL (https://cel.dev) with what is known of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import IntEnum

from amends.definition.shapes import Child

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KEYWORDS = frozenset({"false", "in", "null", "true"})  # which CEL takes for no names


class Binding(IntEnum):
    """How strongly the outermost operator of a text binds."""

    CHOICE = 0
    OR = 1
    AND = 2
    RELATION = 3
    SUM = 4
    PRODUCT = 5
    SIGN = 6
    ATOM = 7


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value is read from. `path` is for the wire; `step` the step that gives it, None for the saga's input."""

    owner: object
    path: str
    step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A value that is known only while a saga runs.

    `type` is its type in Python. `whole` is what it is the part `key` of. `is_path` says that nothing is calculated,
    `is_double` that CEL has it as a double for sure: data of JSON may hold 5 where a float is meant.
    """

    text: str
    type: object
    origins: tuple[Origin, ...] = ()
    binding: Binding = Binding.ATOM
    is_path: bool = False
    is_double: bool = False
    whole: Term | None = None
    key: str | int = ""

    def within(self, binding: Binding) -> str:
        """The text as an operand that must bind at least so strongly."""
        return self.text if self.binding >= binding else f"({self.text})"

    def part(self, child: Child) -> Term:
        """The term of a part of the value."""
        text = self.within(Binding.ATOM) + _segment(child.key)
        origins = tuple(replace(origin, path=text) for origin in self.origins) if self.is_path else self.origins
        return Term(text=text, type=child.type, origins=origins, is_path=self.is_path, whole=self, key=child.key)


class Held:
    """What holds a term in place of a value."""

    __slots__ = ("__amends_term__",)

    def __init__(self, term: Term) -> None:
        self.__amends_term__ = term


def root(owner: object, path: str, type: object, *, step: str | None = None) -> Term:
    """The term of a value that paths begin with."""
    return Term(text=path, type=type, origins=(Origin(owner, path, step),), is_path=True)


def held(holder: Held) -> Term:
    """The term in place of a value."""
    return holder.__amends_term__


def quoted(text: str) -> str:
    """A text as a literal, of JSON as well as of CEL."""
    return json.dumps(text, ensure_ascii=False)


def _segment(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _NAME.fullmatch(key) and key not in _KEYWORDS else f"[{quoted(key)}]"
