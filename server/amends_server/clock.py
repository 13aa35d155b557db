"""The one module that reads a clock. Everybody else gets a Clock, or the time itself as an argument."""

from __future__ import annotations

import time
from typing import Protocol

from amends_server.engine.policy import Time

_NANOSECONDS = 1_000
"""In a microsecond."""


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> Time:
        """Return the time of day, in microseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's clock: wall time, since what is written down must mean the same to the next process."""

    def now(self) -> Time:
        return time.time_ns() // _NANOSECONDS
