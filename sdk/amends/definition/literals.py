"""Values that are known while a saga is written, as terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import cast
from uuid import UUID

from amends.definition.shapes import is_sealed
from amends.definition.structure import parts_of
from amends.definition.terms import Binding, Held, Origin, Term, held, quoted
from amends.errors import ReferenceUseError

INT_MAX = (1 << 63) - 1  # integers of CEL have 64 bits

_REASONS: Mapping[type, str] = {
    Decimal: "a Decimal is a text in JSON: calculate in an action, or count in the smallest unit, as an int",
    datetime: "a datetime is a text in JSON, of which there are several for one moment: compare in an action",
    bytes: "bytes are a text in JSON: look into them in an action",
}


def term_of(value: object) -> Term:
    """The term of a value: of a term itself, a reference, a literal, or data in which references stand.

    :raises ReferenceUseError: if it is of a kind that expressions cannot hold.
    """
    if isinstance(value, Term):
        return value
    if not isinstance(value, Held):
        parts = parts_of(value, "expression")
        return _literal(value) if parts is None else _composed(value, parts)
    term = held(value)
    if is_sealed(term.type):
        raise ReferenceUseError(f"{term.text} is not JSON: it can only be passed on whole.")
    return term


def why_not(kind: object) -> str:
    """Why values of a type cannot stand in an expression."""
    reasons = (text for each, text in _REASONS.items() if isinstance(kind, type) and issubclass(kind, each))
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return next(reasons, f"expressions know None, bool, int, float, str, lists and objects, and no {name}")


def _literal(value: object) -> Term:
    match value:
        case None | bool():
            return Term(text={None: "null", True: "true", False: "false"}[value], type=type(value))
        case Enum():
            return _literal(cast("object", value.value))
        case int():
            return _whole_number(int(value))
        case float():
            return _number(float(value))
        case str():
            return _text(str(value))
        case UUID():
            return _text(str(value))
        case date() if not isinstance(value, datetime):
            return _text(value.isoformat())
        case _:
            raise ReferenceUseError(f"{value!r} cannot stand in an expression: {why_not(type(value))}.")


def _whole_number(value: int) -> Term:
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ReferenceUseError(f"{value} cannot stand in an expression: whole numbers have 64 bits there.")
    return Term(text=str(value), type=int, binding=Binding.ATOM if value >= 0 else Binding.SIGN)


def _number(value: float) -> Term:
    if not math.isfinite(value):
        raise ReferenceUseError(f"{value} cannot stand in an expression: JSON has no such number.")
    binding = Binding.ATOM if math.copysign(1, value) > 0 else Binding.SIGN
    return Term(text=repr(value), type=float, is_double=True, binding=binding)


def _text(value: str) -> Term:
    if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
        raise ReferenceUseError(f"{value!r} cannot stand in an expression: it holds NUL or half a character.")
    return Term(text=quoted(value), type=str)


def _composed(value: object, parts: dict[str, object] | list[object]) -> Term:
    origins: list[Origin] = []

    def inner(each: object) -> str:
        term = term_of(each)
        origins.extend(term.origins)
        return term.text

    if isinstance(parts, dict):
        text = ", ".join(f"{_text(key).text}: {inner(each)}" for key, each in parts.items())
        return Term(text=f"{{{text}}}", type=type(value), origins=tuple(origins))
    text = ", ".join(map(inner, parts))
    return Term(text=f"[{text}]", type=type(value), origins=tuple(origins))
