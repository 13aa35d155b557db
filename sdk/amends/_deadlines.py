"""When calls and starts in flight are over: one timer for any number of them.

Most calls are answered long before their time is up, so a timer for each would be set and cancelled for nothing. Here a
call that is answered leaves its entry behind; entries are thrown out when they are the larger part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf

LEFT_BEHIND_MIN = 1_000
"""Entries of calls that are over, before it is worth a look at all of them."""


class Deadlines:
    """Calls `expire` with each id that is still here when its time has come, never before."""

    def __init__(self, expire: Callable[[int], None]) -> None:
        self._expire = expire
        self._entries: list[tuple[float, int]] = []
        self._open: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf

    def add(self, call_id: int, delay_s: float) -> None:
        """Take an id that is over after `delay_s`."""
        when = asyncio.get_running_loop().time() + delay_s
        heappush(self._entries, (when, call_id))
        self._open.add(call_id)
        if when < self._rings_at:
            self._set_timer(when)

    def remove(self, call_id: int) -> None:
        """Let go of an id. Harmless when it is over."""
        self._open.discard(call_id)
        if len(self._entries) > 2 * len(self._open) + LEFT_BEHIND_MIN:
            self._entries = [entry for entry in self._entries if entry[1] in self._open]
            heapify(self._entries)

    def clear(self) -> None:
        """Let go of all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, inf
        self._entries.clear()
        self._open.clear()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = asyncio.get_running_loop().call_at(when, self._ring), when

    def _ring(self) -> None:
        self._timer, self._rings_at = None, inf
        now, over = asyncio.get_running_loop().time(), list[int]()
        while self._entries and (self._entries[0][0] <= now or self._entries[0][1] not in self._open):
            _, call_id = heappop(self._entries)
            if call_id in self._open:
                self._open.discard(call_id)
                over.append(call_id)
        if self._entries:
            self._set_timer(self._entries[0][0])
        for call_id in over:
            self._expire(call_id)
