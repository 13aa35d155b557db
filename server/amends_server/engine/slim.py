"""Events without large data: enough to fold how a saga stands, for those who keep a state while somebody reads slowly.

No rule of `evolve` looks into data, so statuses and sequences come out the same.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from amends_server.engine.events import Event, StepFailed
from amends_server.engine.payload import Error, Json, Message, Opaque, payload_size_bytes
from amends_server.engine.value import replace

LARGE_BYTES = 256
"""Data below this are left: to look for them costs more than they do."""

_NOTHING = Json("null")


def slim(event: Event) -> Event:
    """Return the event with `null` for each payload that is large."""
    changes: dict[str, Any] = {}
    for field in fields(event):
        value: object = getattr(event, field.name)
        without = _without_data(value)
        if without is not value:
            changes[field.name] = without
    return replace(event, **changes) if changes else event


def _without_data(value: object) -> object:
    match value:
        case Json() | Message() | Opaque():
            return _NOTHING if payload_size_bytes(value) > LARGE_BYTES else value
        case Error(data=data) if data is not None:
            return replace(value, data=None)
        case StepFailed(error=Error(data=data)) if data is not None:
            return replace(value, error=replace(value.error, data=None))
        case _:
            return value
