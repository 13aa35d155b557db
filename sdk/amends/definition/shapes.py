"""What can be taken from a value of a type: which fields and items it has, and of which types they are."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    NewType,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
from google.protobuf.message import Message

from amends._foreign import is_model
from amends.errors import ReferenceUseError, UnknownFieldError
from amends.payloads import Opaque


@dataclass(frozen=True, slots=True)
class Child:
    """A part of a value: the key or index that it has in JSON, and its type."""

    key: str | int
    type: object


class PydanticField(Protocol):
    """What is used of pydantic's FieldInfo."""

    annotation: object
    alias: str | None
    serialization_alias: str | None


def attribute(owner: object, name: str, *, of: str) -> Child:
    """The part that `value.name` is, for a value of the type `owner`. `of` names the value in errors.

    :raises UnknownFieldError: if the type has no such field.
    """
    kinds = members(owner)
    if any(is_untyped(member) for member in kinds):
        return Child(name, Any)
    known = [_attributes(member, of) for member in kinds]
    found = [fields[name] for fields in known if name in fields]
    if found:
        return found[0]
    raise UnknownFieldError(_no_field(owner, name, of, {each for fields in known for each in fields}))


def item(owner: object, key: object, *, of: str) -> Child:
    """The part that `value[key]` is, for a value of the type `owner`. `of` names the value in errors.

    :raises UnknownFieldError: if the type has no such key or index.
    :raises ReferenceUseError: if the key is neither a text nor an index from 0, or the type has no items.
    """
    if isinstance(key, bool) or not isinstance(key, str | int) or (isinstance(key, int) and key < 0):
        raise ReferenceUseError(f"{of}[{key!r}]: a key must be a text, an index a whole number from 0.")
    kinds = members(owner)
    if any(is_untyped(member) for member in kinds):
        return Child(key, Any)
    found = [child for member in kinds if (child := _item(member, key, of)) is not None]
    if found:
        return found[0]
    known = {each for member in kinds if is_typeddict(member) for each in _hints(member)}
    if known:
        raise UnknownFieldError(_no_field(owner, str(key), of, known))
    raise ReferenceUseError(f"{of} is of type {_name(owner)}, from which [{key!r}] cannot be taken.")


def item_type(owner: object) -> object:
    """The type of the items of a list, if all are of one; else Any."""
    kinds = [cast("object", get_args(member)[0]) for member in members(owner) if len(get_args(member)) == 1]
    return kinds[0] if len(kinds) == 1 else Any


def is_sealed(owner: object) -> bool:
    """Whether values of the type only pass whole, as protobuf messages and opaque bytes do."""
    return any(isinstance(member, type) and issubclass(member, Message | Opaque) for member in members(owner))


def pydantic_fields(owner: object) -> Mapping[str, str] | None:
    """The fields of a pydantic model with the names that they have in JSON; None for any other type."""
    fields = _pydantic(owner)
    return None if fields is None else {name: _alias(name, field) for name, field in fields.items()}


def _attributes(owner: object, of: str) -> Mapping[str, Child]:
    plain = _class(owner, of)
    if plain is None:
        return {}
    hints = _hints(plain)
    if issubclass(plain, msgspec.Struct):
        return {name: Child(key, hints.get(name, Any)) for name, key in _struct_keys(plain).items()}
    if dataclasses.is_dataclass(plain):
        return {field.name: Child(field.name, hints.get(field.name, Any)) for field in dataclasses.fields(plain)}
    models = _pydantic(plain) or {}
    return {name: Child(_alias(name, field), field.annotation) for name, field in models.items()}


def _class(owner: object, of: str) -> type[object] | None:
    plain = cast("object", get_origin(owner) or owner)
    if is_sealed(plain):
        raise ReferenceUseError(f"{of} is of type {_name(plain)}, not JSON: it can only be passed on whole.")
    return cast("type[object]", plain) if isinstance(plain, type) else None


def _struct_keys(struct: type[msgspec.Struct]) -> Mapping[str, str | int]:
    config = struct.__struct_config__
    if config.array_like:
        first = 0 if config.tag is None else 1
        return {name: index for index, name in enumerate(struct.__struct_fields__, first)}
    return dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))


def _item(owner: object, key: str | int, of: str) -> Child | None:
    if is_typeddict(owner):
        hints = _hints(owner)
        return Child(key, hints[key]) if isinstance(key, str) and key in hints else None
    plain, arguments = _class(owner, of), get_args(owner)
    if plain is None or issubclass(plain, str | bytes | bytearray):
        return None
    if issubclass(plain, Mapping):
        return Child(key, arguments[1] if len(arguments) == 2 else Any) if isinstance(key, str) else None
    if issubclass(plain, Sequence) and isinstance(key, int):
        return _element(cast("type[object]", plain), arguments, key)
    return None


def _element(plain: type[object], arguments: Sequence[object], index: int) -> Child | None:
    if not issubclass(plain, tuple) or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return Child(index, arguments[0] if arguments else Any)
    return Child(index, arguments[index]) if index < len(arguments) else None


def members(owner: object) -> Sequence[object]:
    """The types that a value may have, `None` left out: whether a value is there is seen when the saga runs."""
    if isinstance(owner, NewType):
        return members(owner.__supertype__)
    if get_origin(owner) is Annotated:
        return members(get_args(owner)[0])
    if get_origin(owner) in (Union, types.UnionType):
        return [each for member in get_args(owner) if member is not type(None) for each in members(member)]
    return [owner]


def is_untyped(owner: object) -> bool:
    """Whether nothing is known of the type."""
    return owner is Any or owner is object or isinstance(owner, TypeVar)


def _hints(owner: object) -> Mapping[str, object]:
    try:
        return get_type_hints(owner)
    except NameError:
        return {}  # annotations may name what only type checkers import: the names of the fields are still known


def _pydantic(owner: object) -> Mapping[str, PydanticField] | None:
    """By duck typing, so that pydantic is never imported for those who do not use it."""
    if not is_model(owner):
        return None
    return cast("Mapping[str, PydanticField]", getattr(owner, "model_fields", {}))


def _alias(name: str, field: PydanticField) -> str:
    return field.serialization_alias or field.alias or name


def _no_field(owner: object, name: str, of: str, known: Collection[str]) -> str:
    if not known:
        return f"{of} is of type {_name(owner)}, which has no field {name!r} that could be passed on."
    return f"{of} is of type {_name(owner)}, which has no field {name!r}; it has {', '.join(sorted(known))}."


def _name(owner: object) -> str:
    return owner.__name__ if isinstance(owner, type) and not get_args(owner) else str(owner)
