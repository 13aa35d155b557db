"""Which conditional steps run together and which never do, as far as the texts of their conditions tell.

A condition is the same for all steps that have it: it reads only what cannot change any more. So a step under `a && b`
runs only if one under `a` does, and never beside one under `!(a)`. That is how branches are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from amends_server.engine.data.expressions import compile_expression
from amends_server.engine.data.jsonvalue import TemplateError

PAIRS_MAX = 10_000
"""Of steps that are compared before anything runs: far more than branches have, and some tenths of a second."""

_QUOTED = r"""[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_SYMBOL = re.compile(rf"{_QUOTED}|\w+|&&|\|\||.", re.DOTALL)
_NAMES = re.compile(rf"{_QUOTED}|\w+|[.\[\]]", re.DOTALL)
_OPEN, _CLOSED = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What must hold for a step to run, as texts to be compared, and what therefore does not, each as a whole."""

    parts: frozenset[str]
    denied: tuple[frozenset[str], ...]

    def imply(self, others: Needs) -> bool:
        """Tell whether a step with the other needs runs wherever this one does."""
        return others.parts <= self.parts

    def exclude(self, others: Needs) -> bool:
        """Tell whether what one step needs to run is what keeps the other from running."""
        return any(each <= others.parts for each in self.denied) or any(each <= self.parts for each in others.denied)


class Exclusions:
    """Which steps of a definition never run together, by their conditions. Of many pairs, the rest may."""

    __slots__ = ("_conditions", "_left", "_needs")

    def __init__(self, conditions: list[str | None]) -> None:
        self._conditions = conditions
        self._needs: dict[int, Needs | None] = {}
        self._left = PAIRS_MAX

    def between(self, one: int, other: int) -> bool:
        """Tell whether two steps never run together; so nothing is said of conditions that have yet to be mended."""
        if self._conditions[one] is None or self._conditions[other] is None:
            return False
        self._left -= 1
        if self._left < 0:
            return False
        a, b = self._needs_of(one), self._needs_of(other)
        return a is None or b is None or a.exclude(b)

    def _needs_of(self, index: int) -> Needs | None:
        if index not in self._needs:
            condition = self._conditions[index]
            self._needs[index] = needs_of(condition) if _is_sound(condition) else None
        return self._needs[index]


def _is_sound(condition: str | None) -> bool:
    try:
        return condition is None or bool(compile_expression(condition))
    except TemplateError:
        return False


def needs_of(condition: str | None) -> Needs:
    """Return what a step with that condition needs; without one, nothing."""
    parts = frozenset[str]() if condition is None else _conjuncts(_symbols(condition))
    return Needs(parts, tuple(denied for part in parts if (denied := _denied(part))))


def _symbols(text: str) -> list[str]:
    return [match[0] for match in _SYMBOL.finditer(text) if not match[0].isspace()]


def _conjuncts(symbols: list[str]) -> frozenset[str]:
    while _is_bracketed(symbols):
        symbols = symbols[1:-1]
    parts: list[list[str]] = [[]]
    depth = 0
    for symbol in symbols:
        depth += (symbol in _OPEN) - (symbol in _CLOSED)
        if not depth and symbol in ("||", "?"):  # these bind looser than `&&`
            return frozenset({_text(symbols)})
        if not depth and symbol == "&&":
            parts.append([])
        else:
            parts[-1].append(symbol)
    if len(parts) == 1:
        return frozenset({_text(symbols)})
    return frozenset[str]().union(*map(_conjuncts, parts))


def _text(symbols: list[str]) -> str:
    return "\0".join(symbols)


def _denied(part: str) -> frozenset[str]:
    """Return the parts of what a part is the negation of; none if it is no negation as a whole."""
    first, *rest = part.split("\0")
    whole = bool(rest) and (_is_bracketed(rest) or all(symbol != "in" and _NAMES.match(symbol) for symbol in rest))
    return _conjuncts(rest) if first == "!" and whole else frozenset()


def _is_bracketed(symbols: list[str]) -> bool:
    """Tell whether brackets are around all of it."""
    if not symbols or symbols[0] != "(":
        return False
    depth = 0
    for place, symbol in enumerate(symbols):
        depth += (symbol in _OPEN) - (symbol in _CLOSED)
        if not depth:
            return place == len(symbols) - 1
    return False
