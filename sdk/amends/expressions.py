"""Functions for expressions: what operators on references cannot say.

To a type checker a reference is the value itself, and so is what these give; at run time it is a reference again.
Python itself cannot calculate with what is known only while a saga runs, so `and`, `or`, `not`, `in`, `len`, `str` and
`x if c else y` have their counterparts here, besides the operators `&` and `|`.
"""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import TypeVar, cast, overload

from amends.definition import operators
from amends.definition.references import Reference

T = TypeVar("T")


def not_(condition: bool) -> bool:
    """`not condition`. The operator `~` does the same, but is an int to type checkers."""
    return cast("bool", Reference(operators.inverted(condition)))


def if_else(condition: bool, then: T, otherwise: T) -> T:
    """`then if condition else otherwise`. Only what is chosen need have a value."""
    return cast("T", Reference(operators.chosen(condition, then, otherwise)))


def present(value: object) -> bool:
    """Whether there is a value: the way to it leads somewhere, and it is not None.

    So `present(step.output)` says whether a step that may be skipped was run and has an output. `value != None` is the
    same.
    """
    return cast("bool", Reference(operators.present(value)))


@overload
def contains(container: str, item: str) -> bool: ...
@overload
def contains(container: Collection[T], item: T) -> bool: ...
def contains(container: object, item: object) -> bool:
    """`item in container`: an item of a list, a key of an object, or a part of a text.

    `contains(["a", "b"], order.input.kind)` says whether it is one of these. Where the type of the container is not
    known, it is taken for a list or an object.
    """
    return cast("bool", Reference(operators.contained(container, item)))


def length(value: Sized) -> int:
    """`len(value)`: the characters of a text, the items of a list, the keys of an object."""
    return cast("int", Reference(operators.length(value)))


def text(value: int | str) -> str:
    """`str(value)` of a whole number. A float is refused: expressions would write 1000000.0 as `1e+06`."""
    return cast("str", Reference(operators.text(value)))
