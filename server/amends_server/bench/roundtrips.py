"""Counts how often an orchestrator waits for PostgreSQL, in the messages that come from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg.protocol

_READY = b"Z"[0]
"""ReadyForQuery: the server has done all that it was asked for, and waits."""

_HEAD_BYTES = 5
"""Of a message: its type, and its length without that."""


class Messages:
    """The messages in a stream of the server's, which may begin and end anywhere in what is received."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skip_bytes = 0

    def count(self, data: bytes, kind: int) -> int:
        """Return how many messages of that type begin in what follows."""
        self._rest += data[self._skip_bytes :]
        self._skip_bytes = max(0, self._skip_bytes - len(data))
        found = place = 0
        while len(self._rest) - place >= _HEAD_BYTES:
            found += self._rest[place] == kind
            place += 1 + int.from_bytes(self._rest[place + 1 : place + _HEAD_BYTES])
        self._skip_bytes += max(0, place - len(self._rest))
        del self._rest[:place]
        return found


class _Counted(asyncpg.protocol.Protocol):
    """A connection's protocol. The driver itself has no place to listen at: what it logs are statements only."""

    trips = 0

    def __init__(self, *made_of: Any) -> None:
        super().__init__(*made_of)
        self._messages = Messages()

    def data_received(self, data: object) -> None:
        assert isinstance(data, bytes), "of a stream"
        _Counted.trips += self._messages.count(data, _READY)
        super().data_received(data)


def count_round_trips() -> Callable[[], int]:
    """Count those of all connections that are made from now on; return what tells how many there were."""
    asyncpg.protocol.Protocol = _Counted  # type: ignore[misc, assignment]
    return lambda: _Counted.trips
