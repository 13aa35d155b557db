"""Sorts of values: as much of a type as says which operators of expressions fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import date, datetime
from enum import Enum, StrEnum
from typing import Literal, cast, get_args, get_origin, is_typeddict
from uuid import UUID

import msgspec

from amends._foreign import is_model
from amends.definition.shapes import is_sealed, is_untyped, members


class Sort(StrEnum):
    """What a value is in JSON, as far as its type says."""

    ANY = "any"
    NOTHING = "none"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    TEXT = "str"
    LIST = "list"
    OBJECT = "object"
    OTHER = "other"
    """Data that JSON has as a text with several ways to write the same, such as a Decimal or a datetime."""
    SEALED = "sealed"
    """No JSON: protobuf messages and opaque bytes."""


NUMBERS = frozenset({Sort.INT, Sort.FLOAT})

# A bool is an int and a datetime a date to Python: the order counts.
_CLASSES: tuple[tuple[type | tuple[type, ...], Sort], ...] = (
    (bool, Sort.BOOL),
    (int, Sort.INT),
    (float, Sort.FLOAT),
    ((bytes, bytearray, memoryview, datetime), Sort.OTHER),
    ((str, UUID, date), Sort.TEXT),
    (type(None), Sort.NOTHING),
    (Mapping, Sort.OBJECT),
    (Collection, Sort.LIST),
)


def sort_of(owner: object) -> Sort:
    """The sort of the values of a type. That one may be None is left out: it is seen when the saga runs."""
    return _common({_sort(member) for member in members(owner)})


def _common(found: set[Sort]) -> Sort:
    if len(found) == 1:
        return found.pop()
    for strict in (Sort.SEALED, Sort.OTHER):
        if strict in found:
            return strict
    return Sort.FLOAT if found <= NUMBERS else Sort.ANY


def _sort(member: object) -> Sort:
    if is_untyped(member):
        return Sort.ANY
    if get_origin(member) is Literal:
        return _common({_sort(cast("object", type(value))) for value in get_args(member)})
    if is_typeddict(member) or is_model(member):
        return Sort.OBJECT
    if is_sealed(member):
        return Sort.SEALED
    plain = cast("object", get_origin(member) or member)
    return _class_sort(plain) if isinstance(plain, type) else Sort.ANY


def _class_sort(plain: type[object]) -> Sort:
    if issubclass(plain, Enum):
        return _common({_sort(cast("object", type(each.value))) for each in plain})
    if issubclass(plain, msgspec.Struct):
        return Sort.LIST if plain.__struct_config__.array_like else Sort.OBJECT
    if dataclasses.is_dataclass(plain):
        return Sort.OBJECT
    return next((sort for classes, sort in _CLASSES if issubclass(plain, classes)), Sort.OTHER)
