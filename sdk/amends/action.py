"""What a saga's author needs to know of an action: who does it, its name and the types of its data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

NAME_LENGTH_MAX = 128  # as the definitions on the wire have it
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


# Not frozen: `@action.compensation` follows `@participant.action`, and sets `has_compensation`.
@dataclass(slots=True, kw_only=True, eq=False)
class Action(Generic[In, Out]):
    """An action of a participant, as `Participant.action` and `Participant.declare` make it.

    `In` and `Out` are the types of its input and output: a dataclass, a msgspec struct, a TypedDict, a pydantic model,
    a protobuf message, or plain JSON types.
    """

    participant: str
    name: str
    input_type: type[In]
    output_type: type[Out]
    has_compensation: bool


def checked_name(what: str, name: str) -> str:
    """Return the name of a participant or an action.

    :raises ValueError: it is not a letter, then letters, digits, `.`, `_` or `-`, at most 128 characters.
    """
    if len(name) > NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for {what}: it must be a letter, then letters, digits, '.', '_' or '-', "
            f"at most {NAME_LENGTH_MAX} characters"
        )
    return name
