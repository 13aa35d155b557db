"""When a call is made again: retry policies, their defaults by kind of step, and jitter without randomness."""

from __future__ import annotations

import zlib
from enum import Enum

from amends_server.engine.value import dataclass

Time = int
"""Microseconds since the Unix epoch, UTC."""

SECOND_US = 1_000_000

ENDLESS = -1
"""`attempts_max` of a call that is made until it succeeds."""

TIMEOUT_US = 30 * SECOND_US
"""How long an attempt may take if nobody said otherwise: longer than any sane handler, short enough to notice."""

_JITTER_STEPS = 1 << 32


class Backoff(Enum):
    """How the interval between attempts grows."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a call is made again.

    `attempts_max` counts all attempts (1 is no retry, ENDLESS never gives up). `jitter` is the part of the interval,
    0 to 1, that is taken off at random.
    """

    attempts_max: int
    interval_us: int = SECOND_US // 5
    interval_max_us: int = 30 * SECOND_US
    backoff: Backoff = Backoff.EXPONENTIAL
    factor: float = 2.0
    jitter: float = 0.2

    def allows(self, attempts_made: int) -> bool:
        """Tell whether there may be another attempt."""
        return self.attempts_max == ENDLESS or attempts_made < self.attempts_max

    def delay_us(self, key: str, attempt: int, attempts_made: int | None = None, least_us: int = 0) -> int:
        """Return the time from the end of an attempt to the next one; the same for the same key and attempt.

        `attempts_made` are those that count for the policy, if not all do. `least_us`: no interval is shorter.
        """
        full = min(self._interval_us(max(1, attempt if attempts_made is None else attempts_made)), self.interval_max_us)
        return round(max(full, least_us) * (1 - self.jitter * _fraction(key, attempt)))

    def _interval_us(self, attempts_made: int) -> float:
        match self.backoff:
            case Backoff.FIXED:
                return self.interval_us
            case Backoff.LINEAR:
                return self.interval_us * attempts_made
            case Backoff.EXPONENTIAL:
                try:
                    return self.interval_us * self.factor ** (attempts_made - 1)
                except OverflowError:  # an endless retry in its thousandth attempt: the cap decides anyway
                    return self.interval_max_us


def _fraction(key: str, attempt: int) -> float:
    """Return a number in [0, 1) that looks random and follows from its arguments."""
    return zlib.crc32(f"{key}#{attempt}".encode()) / _JITTER_STEPS


COMPENSATABLE_RETRY = Retry(attempts_max=3)
"""A few tries, since the saga can still turn back."""

PIVOT_RETRY = Retry(attempts_max=10)
"""Minutes of tries: without a verdict the saga can go nowhere, and an operator is called."""

RETRIABLE_RETRY = Retry(attempts_max=ENDLESS)
"""The saga cannot turn back any more, so it goes on trying."""

COMPENSATION_RETRY = Retry(attempts_max=10)
"""Minutes of tries before an operator is called: an undo that is given up early is work for people."""
