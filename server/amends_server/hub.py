"""Tells those who watch a saga that its journal has grown, and those who wait for its end that it has settled.

It carries no events: watchers read them from the journal. So a slow watcher costs nothing but its own place here, and
one that misses a wake-up finds the events all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import chain

from amends_server.engine.state import State
from amends_server.store.protocol import SagaKey

Settled = Callable[[State | None], None]
"""Called once, with the durable state in which a saga is final or STUCK; None if it gets nowhere in this process."""


class Hub:
    """Who watches what."""

    def __init__(self) -> None:
        self._watchers: dict[SagaKey, set[asyncio.Event]] = {}
        self.closed = False
        """True when no more is to come from this process."""
        self._waiting: dict[SagaKey, list[Settled]] = {}

    def publish(self, key: SagaKey, durable: State | None) -> None:
        """Wake those who watch this saga, and tell those who wait for its end if it has come.

        None says that this process cannot carry the saga on.
        """
        for event in self._watchers.get(key, ()):
            event.set()
        if (durable is None or durable.settled) and key in self._waiting:
            for settled in self._waiting.pop(key):
                settled(durable)

    def wait(self, key: SagaKey, settled: Settled) -> None:
        """Have somebody called, later, when the saga settles the next time."""
        if self.closed:
            asyncio.get_running_loop().call_soon(settled, None)
            return
        self._waiting.setdefault(key, []).append(settled)

    def leave(self, key: SagaKey, settled: Settled) -> None:
        """Do not call them any more. Harmless when they were called."""
        waiting = self._waiting.get(key)
        if waiting is not None and settled in waiting:
            waiting.remove(settled)
            if not waiting:
                del self._waiting[key]

    def close(self) -> None:
        """Wake everybody for the last time: they are to go elsewhere for what follows."""
        self.closed = True
        self.stir()

    def stir(self) -> None:
        """Wake everybody: they are to look again where their saga is run."""
        for events in self._watchers.values():
            for event in events:
                event.set()
        waiting, self._waiting = self._waiting, {}
        for settled in chain.from_iterable(waiting.values()):
            settled(None)

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
