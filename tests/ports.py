"""Addresses where nobody listens, and that no other test gets meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deserted() -> Iterator[str]:
    """An address at which connections are refused, until somebody who was told of it listens there.

    A port that was only found free may be given to anybody else before that.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that one may listen here
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
