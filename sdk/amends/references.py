"""References: what stands in a definition for a value that is known only while a saga runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from amends.errors import ReferenceUseError
from amends.shapes import Child, attribute, item

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ALLOWED = 'It can be put into a request as it is, or a field of it (.name), a key (["key"]) or an item ([0]).'


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. `path` is for the wire; `step` the step that gives it, None for the saga's input."""

    owner: object
    path: str
    step: str | None
    type: object


class Reference:
    """Stands for a value of a saga: its input, the output of a step, or a part of these.

    To a type checker it is the value itself, so it has no attributes of its own but the parts of the value. Whatever
    would need the value now raises ReferenceUseError.
    """

    __slots__ = ("__amends_origin__",)

    def __init__(self, origin: Origin) -> None:
        self.__amends_origin__ = origin

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # asked for by Python's own protocols, such as copying
        origin = self.__amends_origin__
        return _part(origin, attribute(origin.type, name, of=origin.path))

    def __getitem__(self, key: object) -> Reference:
        origin = self.__amends_origin__
        return _part(origin, item(origin.type, key, of=origin.path))

    def __repr__(self) -> str:
        return f"<reference ${{{self.__amends_origin__.path}}}>"

    def __copy__(self) -> Reference:
        return self

    def __deepcopy__(self, memo: object) -> Reference:
        return self


def origin_of(reference: Reference) -> Origin:
    """Where the value of a reference comes from."""
    return reference.__amends_origin__


def _part(origin: Origin, child: Child) -> Reference:
    return Reference(Origin(origin.owner, origin.path + _segment(child.key), origin.step, child.type))


def _segment(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _NAME.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=False)}]"


def _refusing(use: str) -> Callable[..., NoReturn]:
    def refuse(self: Reference, *_: object) -> NoReturn:
        raise ReferenceUseError(f"{self!r} cannot be {use}: its value is known only while a saga runs. {_ALLOWED}")

    return refuse


_REFUSED: Mapping[str, str] = {
    "bool": "tested for truth",
    "eq ne lt le gt ge": "compared",
    "str format bytes": "turned into text",
    "iter len contains reversed next": "gone through",
    "call": "called",
    "int float complex index round trunc floor ceil": "turned into a number",
    "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or": "calculated with",
    "radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror": "calculated with",
    "iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior": "calculated with",
    "neg pos abs invert": "calculated with",
    "setitem delitem": "changed",
    "await": "awaited",
    "enter aenter aiter": "used like that",
}

for _names, _use in _REFUSED.items():
    for _each in _names.split():
        setattr(Reference, f"__{_each}__", _refusing(_use))
