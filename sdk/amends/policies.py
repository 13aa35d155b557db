"""Policies of sagas and steps: kinds, retries, compensations and times, as a saga's author writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Final

from google.protobuf import duration_pb2

from amends.errors import DefinitionError
from amends.v1 import definition_pb2

Duration = float | timedelta
"""A length of time; a plain number is in seconds."""

_NANOSECONDS = 1_000_000_000
_SECONDS_MAX = 315_576_000_000  # what a Duration can hold


class Kind(StrEnum):
    """Which way a saga may go around a step."""

    COMPENSATABLE = "COMPENSATABLE"
    """The step can be undone, or says that it needs no undoing."""
    PIVOT = "PIVOT"
    """After the success of this step the saga only goes forward."""
    RETRIABLE = "RETRIABLE"
    """The step succeeds if it is tried often enough; it has no compensation."""


COMPENSATABLE: Final = Kind.COMPENSATABLE
PIVOT: Final = Kind.PIVOT
RETRIABLE: Final = Kind.RETRIABLE


class Backoff(StrEnum):
    """How the time between attempts grows."""

    FIXED = "FIXED"
    """Always the first interval."""
    LINEAR = "LINEAR"
    """The first interval times the number of attempts made."""
    EXPONENTIAL = "EXPONENTIAL"
    """The first interval times the factor for every further attempt made."""


class OnCompensationFailure(StrEnum):
    """What happens when a compensation fails for good."""

    HALT = "HALT"
    """Stop there and wait for an operator: undoing earlier steps might do harm."""
    CONTINUE = "CONTINUE"
    """Undo all that can be undone, then wait for an operator."""


class NotNeeded(Enum):
    """The type of NOT_NEEDED."""

    NOT_NEEDED = "NOT_NEEDED"


NOT_NEEDED: Final = NotNeeded.NOT_NEEDED
"""In place of a compensation: the step leaves nothing to undo, for example because it only reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a call is made again. What is None takes the default of the orchestrator.

    `attempts` counts all of them: 1 is no retry, -1 is without end. `interval` is the time before the second attempt
    and `interval_max` the longest between two. `factor` (at least 1) is for EXPONENTIAL. `jitter` is the part of the
    interval that is random, from 0 to 1.

    :raises DefinitionError: for values out of these ranges.
    """

    attempts: int | None = None
    interval: Duration | None = None
    interval_max: Duration | None = None
    backoff: Backoff | None = None
    factor: float | None = None
    jitter: float | None = None

    def __post_init__(self) -> None:
        self.message()

    def message(self) -> definition_pb2.RetryPolicy:
        if self.attempts is not None and self.attempts < 1 and self.attempts != -1:
            raise DefinitionError(f"Retry(attempts={self.attempts}): at least 1, or -1 for without end.")
        if self.factor is not None and not (math.isfinite(self.factor) and self.factor >= 1):
            raise DefinitionError(f"Retry(factor={self.factor}): at least 1.")
        if self.jitter is not None and not 0 <= self.jitter <= 1:
            raise DefinitionError(f"Retry(jitter={self.jitter}): from 0 to 1.")
        return definition_pb2.RetryPolicy(
            attempts_max=self.attempts or 0,
            interval=duration_message(self.interval, "Retry(interval)"),
            interval_max=duration_message(self.interval_max, "Retry(interval_max)"),
            backoff=definition_pb2.Backoff.Value(f"BACKOFF_{self.backoff or 'UNSPECIFIED'}"),
            factor=self.factor,
            jitter=self.jitter,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """How a step is undone. `arguments` reach the compensation beside the input and output that it always gets.

    References to what is done before the step may stand in `arguments`. `timeout` is for one attempt; None means the
    timeout of the action.
    """

    arguments: object = None
    retry: Retry | None = None
    timeout: Duration | None = None


def duration_message(value: Duration | None, name: str) -> duration_pb2.Duration | None:
    """A length of time for the wire. `name` is what it is called in errors.

    :raises DefinitionError: if it is not positive, or longer than 10,000 years.
    """
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not (math.isfinite(seconds) and round(seconds * _NANOSECONDS) > 0):
        raise DefinitionError(f"{name}: {value!r} must be longer than nothing, in seconds.")
    if seconds > _SECONDS_MAX:
        raise DefinitionError(f"{name}: {value!r} must be at most {_SECONDS_MAX} seconds.")
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * _NANOSECONDS))
    return message
