"""Tells those who watch a saga that its journal has grown. It carries no events: watchers read them from the journal.

So a slow watcher costs nothing but its own place here, and one that misses a wake-up finds the events all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from amends_server.store.protocol import SagaKey


class Hub:
    """Who watches what."""

    def __init__(self) -> None:
        self._watchers: dict[SagaKey, set[asyncio.Event]] = {}
        self.closed = False
        """True when no more is to come from this process."""

    def publish(self, key: SagaKey) -> None:
        """Wake those who watch this saga."""
        for event in self._watchers.get(key, ()):
            event.set()

    def close(self) -> None:
        """Wake everybody for the last time: they are to go elsewhere for what follows."""
        self.closed = True
        for events in self._watchers.values():
            for event in events:
                event.set()

    @contextmanager
    def watch(self, key: SagaKey) -> Generator[asyncio.Event]:
        """Give an event that is set whenever the saga's journal grows; whoever waits clears it before reading."""
        event = asyncio.Event()
        self._watchers.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            events = self._watchers[key]
            events.discard(event)
            if not events:
                del self._watchers[key]
