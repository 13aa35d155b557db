"""What operators and functions on references become in CEL, so that the value is the one that Python would give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from amends.definition.literals import term_of, why_not
from amends.definition.shapes import item_type
from amends.definition.sorts import NUMBERS, Sort, sort_of
from amends.definition.terms import Binding, Origin, Term
from amends.errors import ReferenceUseError

TEXT_LENGTH_MAX = 2_000  # what orchestrators take; expressions that use a value several times grow fast

_ORDERED = frozenset({Sort.INT, Sort.FLOAT, Sort.TEXT})
_COUNTED = frozenset({Sort.TEXT, Sort.LIST, Sort.OBJECT})
_BINDINGS: dict[str, Binding] = {"*": Binding.PRODUCT, "+": Binding.SUM, "-": Binding.SUM}


def calculated(symbol: str, left: object, right: object) -> Term:
    """`left + right`, and the same for - * / // %.

    :raises ReferenceUseError: if the operator does not fit the types.
    """
    a, b = term_of(left), term_of(right)
    sorts = {sort_of(a.type), sort_of(b.type)}
    if symbol == "+":
        for sort in (Sort.TEXT, Sort.LIST):
            if sort in sorts and sorts <= {sort, Sort.ANY}:
                return _infix(a, "+", b, Binding.SUM, a.type if sort_of(a.type) is sort else b.type)
    if not sorts <= NUMBERS | {Sort.ANY}:
        raise _misfit(symbol, a, b)
    if symbol in ("%", "//"):
        return _remainder(a, b, sorts) if symbol == "%" else _quotient(a, b, sorts)
    if symbol == "/":
        return replace(_infix(_double(a), "/", _double(b), Binding.PRODUCT, float), is_double=True)
    if Sort.FLOAT in sorts:
        return replace(_infix(_double(a), symbol, _double(b), _BINDINGS[symbol], float), is_double=True)
    return _infix(a, symbol, b, _BINDINGS[symbol], Any if Sort.ANY in sorts else int)


def negated(value: object) -> Term:
    """`-value`.

    :raises ReferenceUseError: if it is no number.
    """
    term = term_of(value)
    sort = sort_of(term.type)
    if sort not in NUMBERS | {Sort.ANY}:
        raise _unfit("-", "a number", term)
    number = _double(term) if sort is Sort.FLOAT else term
    return replace(number, text=f"-{number.within(Binding.ATOM)}", binding=Binding.SIGN, is_path=False, whole=None)


def compared(symbol: str, left: object, right: object) -> Term:
    """`left == right`, and the same for != < <= > >=.

    :raises ReferenceUseError: if values of these types cannot be compared so.
    """
    if right is None and symbol in ("==", "!="):
        there = present(left)
        return there if symbol == "!=" else inverted(there)
    a, b = term_of(left), term_of(right)
    sorts = {sort_of(a.type), sort_of(b.type)}
    known = sorts - {Sort.ANY}
    fitting = _ORDERED if symbol in ("<", "<=", ">", ">=") else set(Sort) - {Sort.OTHER, Sort.SEALED}
    if not known <= fitting or (len(known) > 1 and not known <= NUMBERS):
        raise _misfit(symbol, a, b)
    return _infix(_loose(a, b), symbol, b, Binding.RELATION, bool)


def joined(symbol: str, left: object, right: object) -> Term:
    """`left and right`, for &, or `left or right`, for |.

    :raises ReferenceUseError: if one is no condition.
    """
    a, b = condition(left), condition(right)
    if symbol == "&":
        return _infix(a, "&&", b, Binding.AND, bool)
    return _infix(a, "||", b, Binding.OR, bool)


def inverted(value: object) -> Term:
    """`not value`.

    :raises ReferenceUseError: if it is no condition.
    """
    term = condition(value)
    return Term(text=f"!{term.within(Binding.ATOM)}", type=bool, binding=Binding.SIGN, origins=term.origins)


def condition(value: object) -> Term:
    """The term of what is true or false.

    :raises ReferenceUseError: if it is something else.
    """
    term = term_of(value)
    if sort_of(term.type) not in (Sort.BOOL, Sort.ANY):
        raise _unfit("a condition", "true or false", term)
    return term


def present(value: object) -> Term:
    """Whether a value is there and not None."""
    term = term_of(value)
    tests = list(_presence(term)) or ["true"]
    text, binding = " && ".join(tests), Binding.AND if len(tests) > 1 else Binding.RELATION
    return Term(text=text, type=bool, origins=term.origins, binding=binding)


def contained(container: object, item: object) -> Term:
    """Whether a list has an item, an object a key, or a text a part.

    :raises ReferenceUseError: if values of these types cannot be in one another.
    """
    a, b = term_of(container), term_of(item)
    sort = sort_of(a.type)
    if sort is Sort.TEXT:
        if sort_of(b.type) not in (Sort.TEXT, Sort.ANY):
            raise _misfit("contains", a, b)
        return Term(text=f"{a.within(Binding.ATOM)}.contains({b.text})", type=bool, origins=_origins(a, b))
    if sort not in (Sort.LIST, Sort.OBJECT, Sort.ANY):
        raise _unfit("contains", "a list, an object or a text", a)
    same = sort is Sort.LIST and sort_of(item_type(a.type)) is sort_of(b.type)
    return _infix(b if same else _untyped(b), "in", a, Binding.RELATION, bool)


def length(value: object) -> Term:
    """How many characters, items or keys.

    :raises ReferenceUseError: if values of the type have no length.
    """
    term = term_of(value)
    if sort_of(term.type) not in _COUNTED | {Sort.ANY}:
        raise _unfit("length", "a text, a list or an object", term)
    return Term(text=f"size({term.text})", type=int, origins=term.origins)


def text(value: object) -> Term:
    """A whole number as a text. CEL writes floats otherwise than Python does.

    :raises ReferenceUseError: if it is something else.
    """
    term = term_of(value)
    if sort_of(term.type) not in (Sort.INT, Sort.TEXT, Sort.ANY):
        raise _unfit("text", "a whole number", term)
    return Term(text=f"string({term.text})", type=str, origins=term.origins)


def chosen(test: object, then: object, otherwise: object) -> Term:
    """One of two values.

    :raises ReferenceUseError: if the first is no condition.
    """
    decided, a, b = condition(test), term_of(then), term_of(otherwise)
    sorts = sort_of(a.type), sort_of(b.type)
    doubles = {*sorts} >= NUMBERS or sorts == (Sort.FLOAT, Sort.FLOAT)
    if doubles:
        a, b = _double(a), _double(b)
    elif sorts[0] is not sorts[1] or sorts[0] not in (Sort.INT, Sort.TEXT, Sort.BOOL):
        a = _untyped(a)  # CEL wants both of one type
    return Term(
        text=_bounded(f"{decided.within(Binding.OR)} ? {a.within(Binding.OR)} : {b.within(Binding.CHOICE)}"),
        type=_union(a, b),
        origins=_origins(decided, a, b),
        binding=Binding.CHOICE,
        is_double=doubles,
    )


def _union(a: Term, b: Term) -> object:
    kinds = [each.type for each in (a, b)]
    if kinds[0] == kinds[1] or kinds[1] is type(None):
        return kinds[0]
    if kinds[0] is type(None):
        return kinds[1]
    return float if {sort_of(kind) for kind in kinds} <= NUMBERS else Any


def _presence(term: Term) -> Iterable[str]:
    """The tests, of the whole before its parts: a part of what is not there has no value, not even null."""
    if term.whole is not None:
        yield from _presence(term.whole)
        whole = term.whole.within(Binding.SUM)
        if isinstance(term.key, int):
            yield f"size({term.whole.text}) > {term.key}"
        else:
            yield f"{term_of(term.key).text} in {whole}"
    if term.whole is not None or any(origin.step for origin in term.origins) or not term.is_path:
        yield f"{_untyped(term).text} != null"


def _remainder(a: Term, b: Term, sorts: set[Sort]) -> Term:
    """In Python the remainder has the sign of the divisor, in CEL that of the dividend."""
    if Sort.FLOAT in sorts:
        raise _misfit("%", a, b)
    divisor = b.within(Binding.SIGN)
    text = f"({a.within(Binding.PRODUCT)} % {divisor} + {b.within(Binding.PRODUCT)}) % {divisor}"
    kind = Any if Sort.ANY in sorts else int
    return Term(text=_bounded(text), type=kind, origins=_origins(a, b), binding=Binding.PRODUCT)


def _quotient(a: Term, b: Term, sorts: set[Sort]) -> Term:
    """Python rounds down, CEL towards nought."""
    if Sort.FLOAT in sorts:
        raise _misfit("//", a, b)
    rest = _remainder(a, b, sorts)
    return _infix(_infix(a, "-", rest, Binding.SUM, int), "/", b, Binding.PRODUCT, rest.type)


def _double(term: Term) -> Term:
    if term.is_double:
        return term
    origins = term.origins
    if not origins and sort_of(term.type) is Sort.INT and term.binding is not Binding.SIGN and term.text.isdecimal():
        return Term(text=f"{term.text}.0", type=float, is_double=True)
    return Term(text=f"double({term.text})", type=float, origins=origins, is_double=True)


def _loose(a: Term, b: Term) -> Term:
    """CEL compares numbers of two sorts, and lists of two, only if it does not know their types beforehand."""
    sorts = sort_of(a.type), sort_of(b.type)
    if sorts[0] is sorts[1] and sorts[0] in (Sort.INT, Sort.FLOAT, Sort.TEXT, Sort.BOOL, Sort.ANY):
        return a
    return a if Sort.ANY in sorts and not {Sort.LIST, Sort.OBJECT} & set(sorts) else _untyped(a)


def _untyped(term: Term) -> Term:
    return replace(term, text=f"dyn({term.text})", binding=Binding.ATOM, is_path=False, whole=None)


def _infix(a: Term, symbol: str, b: Term, binding: Binding, kind: object) -> Term:
    # relations do not chain, and what is on the right of the others is calculated first only in brackets
    left = a.within(Binding(binding + 1) if binding is Binding.RELATION else binding)
    text = f"{left} {symbol} {b.within(Binding(binding + 1))}"
    return Term(text=_bounded(text), type=kind, origins=_origins(a, b), binding=binding)


def _origins(*terms: Term) -> tuple[Origin, ...]:
    return tuple(dict.fromkeys(origin for term in terms for origin in term.origins))


def _bounded(text: str) -> str:
    if len(text) > TEXT_LENGTH_MAX:
        raise ReferenceUseError(
            f"An expression may have {TEXT_LENGTH_MAX} characters, and this one is longer: have an action do it. "
            f"It begins with {text[:100]}"
        )
    return text


def _misfit(symbol: str, a: Term, b: Term) -> ReferenceUseError:
    for term in (a, b):
        if sort_of(term.type) in (Sort.OTHER, Sort.SEALED):
            return ReferenceUseError(f"{term.text} cannot stand in an expression: {why_not(term.type)}.")
    hint = "" if symbol not in ("%", "//") else " It is for whole numbers."
    kinds = " and ".join(sort_of(term.type) for term in (a, b))
    return ReferenceUseError(f"`{symbol}` is not for {kinds}: {a.text} {symbol} {b.text}.{hint}")


def _unfit(use: str, wanted: str, term: Term) -> ReferenceUseError:
    return ReferenceUseError(f"`{use}` must be of {wanted}, and {term.text} is of the type {sort_of(term.type)}.")
