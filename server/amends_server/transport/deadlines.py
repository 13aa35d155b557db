"""When calls in flight are over: a few timers for any number of calls.

Most calls are answered long before their time is up, so a timer for each would be set and cancelled for nothing. Calls
whose time is up within the same few milliseconds share one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

GRAIN_US = 5_000
"""Calls may be over this much late, never early: far less than anybody's timeout."""


class Deadlines:
    """Calls `expire` with each id that is still here when its time has come."""

    def __init__(self, expire: Callable[[int], None]) -> None:
        self._expire = expire
        self._ids: dict[int, set[int]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def add(self, call_id: int, delay_us: int) -> int:
        """Take an id that is over after `delay_us`; return what `remove` needs."""
        loop = asyncio.get_running_loop()
        place = int(loop.time() * 1e6 + delay_us) // GRAIN_US + 1
        ids = self._ids.get(place)
        if ids is None:
            ids = self._ids[place] = set()
            self._timers[place] = loop.call_at(place * GRAIN_US / 1e6, self._ring, place)
        ids.add(call_id)
        return place

    def remove(self, call_id: int, place: int) -> None:
        """Let go of an id. Harmless when it is over."""
        ids = self._ids.get(place)
        if ids is not None:
            ids.discard(call_id)
            if not ids:
                del self._ids[place]
                self._timers.pop(place).cancel()

    def clear(self) -> None:
        """Let go of all."""
        for timer in self._timers.values():
            timer.cancel()
        self._ids.clear()
        self._timers.clear()

    def _ring(self, place: int) -> None:
        del self._timers[place]
        for call_id in self._ids.pop(place):
            self._expire(call_id)
