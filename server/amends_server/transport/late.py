"""What is kept of calls whose time was up, so that their answers are known for what they are when they come."""

from __future__ import annotations

from collections import OrderedDict

from amends_server.transport.attempts import LateCall

LATE_MAX = 10_000
"""Calls that are kept: some hundred bytes each, for an answer that changes nothing."""

LATE_S = 600.0
"""How long a call is kept: nobody looks for an answer's trace in the journal that comes even later."""


class LateCalls:
    """Calls by their ids, the oldest first."""

    def __init__(self) -> None:
        self._calls: OrderedDict[int, tuple[float, LateCall]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call_id: int, call: LateCall, now_s: float) -> None:
        """Keep a call, and let go of those that are too old or too many."""
        self._calls[call_id] = (now_s, call)
        while len(self._calls) > LATE_MAX or now_s - next(iter(self._calls.values()))[0] > LATE_S:
            self._calls.popitem(last=False)

    def pop(self, call_id: int) -> LateCall | None:
        """Return a call that was kept, and let go of it."""
        _, call = self._calls.pop(call_id, (0.0, None))
        return call
