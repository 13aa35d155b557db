"""What a journal has said of one step, as the observer of journals keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from amends_server.engine.policy import Time

OPERATOR = 0
"""Stands among a step's unproven attempts for an effect that an operator vouched for."""

LOST = -1
"""And this one for an attempt that a store which was restored may have forgotten."""


@dataclass
class Seen:
    """What the journal has said of one step."""

    unproven: set[int] = field(default_factory=set[int])
    attempts: int = 0
    counted: int = 0  # those that the retry policy allows; questions about work in progress are counted anew each time
    asked: int = 0
    undo_attempts: int = 0
    open: bool = False
    undo_open: bool = False
    due: Time | None = None
    undo_due: Time | None = None
    done: bool = False
    skipped: bool = False
    undo_failed: bool = False
    passed_over: bool = False
    failed: bool = False
    delayed: bool = False
    work: int | None = None  # the attempt that the participant said it is at work on
    without_effect: bool = False
    by_operator: bool = False
    first_time: Time | None = None

    @property
    def wants_help(self) -> bool:
        """True if an operator may have something to say about the step."""
        return self.failed or self.undo_failed or self.due is not None or self.undo_due is not None or self.waits

    @property
    def waits(self) -> bool:
        """True while a participant is at work, and not being asked."""
        return self.work is not None and not self.open
