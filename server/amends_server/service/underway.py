"""How many bytes of requests of all clients together a server holds at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from amends_server.errors import Overloaded


class Sized(Protocol):
    """A message."""

    def ByteSize(self) -> int: ...


class RequestsUnderWay:
    """Counts the bytes of requests that were taken and are not answered yet. `what` names them for the refusal."""

    def __init__(self, what: str, bytes_max: int) -> None:
        self._what = what
        self._bytes_max = bytes_max
        self._size_bytes = 0

    def enter(self, request: Sized) -> int:
        """Count a request, and return its size for `leave`.

        :raises Overloaded: if there are as many bytes as may be; the last request that was taken may go beyond.
        """
        if self._size_bytes >= self._bytes_max:
            raise Overloaded(self._what, self._bytes_max)
        size_bytes = request.ByteSize()
        self._size_bytes += size_bytes
        return size_bytes

    def leave(self, size_bytes: int) -> None:
        """Count a request no more: it is answered."""
        self._size_bytes -= size_bytes

    @contextmanager
    def taking(self, request: Sized) -> Generator[None]:
        """Count a request inside of the block. :raises Overloaded:"""
        size_bytes = self.enter(request)
        try:
            yield
        finally:
            self.leave(size_bytes)
