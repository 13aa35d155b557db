"""References: what stands in a definition for a value that is known only while a saga runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from amends.definition.operators import calculated, compared, inverted, joined, negated
from amends.definition.shapes import attribute, item
from amends.definition.terms import Held, Term, held
from amends.errors import ReferenceUseError

_ALLOWED = (
    "It can be put into a request; so can a field of it (.name), a key (['key']), an item ([0]), and what is made of "
    "it with + - * / // %, == != < <= > >=, & | and the functions of amends.expressions."
)
_CONDITION = (
    "For `and`, `or` and `not` write &, | and not_(…), with brackets around comparisons; for `x if c else y` write "
    "if_else(c, x, y); for `in` write contains(…); for `if` give a step its when=…, or use `with saga.when(…):`."
)


class Reference(Held):
    """Stands for a value of a saga: its input, the output of a step, a part of these, or what is calculated from them.

    To a type checker it is the value itself, so it has no attributes of its own but the parts of the value. Operators
    on it give further references. Whatever would need the value now raises ReferenceUseError.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # asked for by Python's own protocols, such as copying
        term = held(self)
        return Reference(term.part(attribute(term.type, name, of=term.text)))

    def __getitem__(self, key: object) -> Reference:
        term = held(self)
        return Reference(term.part(item(term.type, key, of=term.text)))

    def __repr__(self) -> str:
        return f"<reference ${{{held(self).text}}}>"

    def __copy__(self) -> Reference:
        return self

    def __deepcopy__(self, memo: object) -> Reference:
        return self

    def __neg__(self) -> Reference:
        return Reference(negated(self))

    def __invert__(self) -> Reference:
        return Reference(inverted(self))


Infix = Callable[[str, object, object], Term]


def _operator(make: Infix, symbol: str) -> Callable[[Reference, object], Reference]:
    def operate(self: Reference, other: object) -> Reference:
        return Reference(make(symbol, self, other))

    return operate


def _reflected(make: Infix, symbol: str) -> Callable[[Reference, object], Reference]:
    def operate(self: Reference, other: object) -> Reference:
        return Reference(make(symbol, other, self))

    return operate


def _refusing(use: str, hint: str = _ALLOWED) -> Callable[..., NoReturn]:
    def refuse(self: Reference, *_: object) -> NoReturn:
        raise ReferenceUseError(f"{self!r} cannot be {use}: its value is known only while a saga runs. {hint}")

    return refuse


_CALCULATED: Mapping[str, str] = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%"}
_COMPARED: Mapping[str, str] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_JOINED: Mapping[str, str] = {"and": "&", "or": "|"}
_REFUSED: Mapping[str, str] = {
    "str format bytes": "turned into text like this (write text(…), and join texts with +)",
    "iter len reversed next": "gone through or counted like this (write length(…))",
    "call": "called",
    "int float complex index round trunc floor ceil": "turned into a number",
    "matmul divmod pow lshift rshift xor": "calculated with like this",
    "rmatmul rdivmod rpow rlshift rrshift rxor": "calculated with like this",
    "pos abs": "calculated with like this",
    "setitem delitem": "changed",
    "await": "awaited",
    "enter aenter aiter": "used like that",
}

for _name, _symbol in _CALCULATED.items():
    setattr(Reference, f"__{_name}__", _operator(calculated, _symbol))
    setattr(Reference, f"__r{_name}__", _reflected(calculated, _symbol))
for _name, _symbol in _COMPARED.items():
    setattr(Reference, f"__{_name}__", _operator(compared, _symbol))
for _name, _symbol in _JOINED.items():
    setattr(Reference, f"__{_name}__", _operator(joined, _symbol))
    setattr(Reference, f"__r{_name}__", _reflected(joined, _symbol))
for _names, _use in _REFUSED.items():
    for _each in _names.split():
        setattr(Reference, f"__{_each}__", _refusing(_use))
for _each, _use in {
    "bool": "tested for truth",
    "contains": "looked into with `in`",
    "hash": "a key, or looked for in a set",  # it would silently not be found
}.items():
    setattr(Reference, f"__{_each}__", _refusing(_use, _CONDITION))
