"""How a saga stands: what its journal adds up to. How events move it is in `evolve`."""

from __future__ import annotations

from enum import Enum

from amends_server.engine.events import (
    Cause,
    LateReply,
    Resolution,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaStarted,
    StepResolved,
)
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error, Payload, RelatedService
from amends_server.engine.policy import Time
from amends_server.engine.value import dataclass, replace


class SagaStatus(Enum):
    """Where a saga stands."""

    __hash__ = object.__hash__  # by identity, as members are equal: sets and dicts of them are asked all the time

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    STUCK = "stuck"
    FAILED = "failed"


FINAL = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED})
"""No event and no call after these."""


class StepStatus(Enum):
    """Where a step stands."""

    __hash__ = object.__hash__  # by identity, as members are equal: sets and dicts of them are asked all the time

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


DONE = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})
"""Going forward, steps that come after these may run."""

UNDOING = frozenset({StepStatus.COMPENSATING, StepStatus.COMPENSATED, StepStatus.COMPENSATION_FAILED})
"""Steps on their way back, or at its end; of those without an error and an operator's word the action succeeded."""

BLOCKED = frozenset({StepStatus.FAILED, StepStatus.UNKNOWN, StepStatus.COMPENSATION_FAILED})
"""Steps that ended otherwise than wished; while nothing else moves, they are why a saga is STUCK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallState:
    """The attempts of an action or a compensation.

    `attempts` counts those dispatched; `forgiven` of them do not count for the retry policy, because an operator gave
    the call its attempts anew, and at `forgiven_time` its step's time, or because they were withdrawn unsent, or
    because the participant was at work. A pause moves that time on by as long as it took. `open`: the last one has no
    outcome yet. `due_time`: when the next one is to be sent. `waiting`: the participant has said that it is at work;
    further attempts only ask for the outcome. `worked`: how many counted when it said so first, and count again once
    its work has ended. `put_off_time`: since when its attempts are put off unsent; None once one was answered.

    `heard`: attempts up to this one were refused, with `heard_error`, or their output was. A token of theirs that says
    "refused" says it again, and not of the work that the next attempt has begun. `broken`: likewise, broken off.
    """

    attempts: int = 0
    forgiven: int = 0
    forgiven_time: Time | None = None
    open: bool = False
    due_time: Time | None = None
    waiting: bool = False
    error: Error | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    worked: int = 0
    heard: int = 0
    heard_error: Error | None = None
    broken: int = 0
    put_off_time: Time | None = None

    @property
    def active(self) -> bool:
        """True while an outcome or the next attempt is waited for."""
        return self.open or self.due_time is not None or self.waiting

    @property
    def rests(self) -> bool:
        """True while the next attempt is waited for, or word from the participant, and none is open."""
        return self.active and not self.open

    @property
    def takes_word(self) -> bool:
        """True while the outcome may be brought by whoever holds a token."""
        return self.waiting and not self.open

    def counted(self, *, refused: bool) -> int:
        """How many attempts count for the retry policy once this one, or this work, has ended without success.

        A question that got no answer has not ended the work; the questions about it count as long as it goes on.
        """
        ended = self.waiting and (refused or not self.open)
        return self.worked if ended else self.attempts - self.forgiven

    @property
    def at_stake(self) -> int:
        """For how many attempts the next verdict speaks: for its own, and for the work that it asked about."""
        return 2 if self.open and self.waiting else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepState:
    """A step. `unproven`: how many attempts of the action may have had an effect that is still there.

    `error` is what it ended with if it did not succeed, and what templates and conditions see. That of the last
    attempt, which may not be the last word, is in `action`.
    """

    status: StepStatus = StepStatus.PENDING
    action: CallState = CallState()
    compensation: CallState = CallState()
    unproven: int = 0
    input: Payload | None = None
    output: Payload | None = None
    error: Error | None = None
    arguments: Payload | None = None
    related_services: tuple[RelatedService, ...] = ()
    resolution: StepResolved | None = None

    @property
    def active(self) -> bool:
        """True while an outcome or the next attempt of one of the step's calls is waited for."""
        return self.action.open or self.compensation.open or self.timed

    @property
    def timed(self) -> bool:
        """True while a time matters to the step: when an attempt is due, or how long its participant may be at work."""
        return self.action.due_time is not None or self.compensation.due_time is not None or self.action.waiting

    @property
    def clear(self) -> bool:
        """Going back: nothing (any more) to wait for or to undo."""
        return not self.action.open and self.unproven == 0

    @property
    def halts(self) -> bool:
        """Going back: could not be undone, and no operator said to go on without it."""
        return self.status is StepStatus.COMPENSATION_FAILED and not self.passed_over

    @property
    def passed_over(self) -> bool:
        """Going back: an operator said to go on without this compensation."""
        return self.resolution is not None and self.resolution.resolution is Resolution.SKIPPED


LateMark = tuple[str, int, bool, LateReply]
"""A reply that came too late: the step, the attempt, whether of the compensation, and what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckState:
    """Why and since when a saga needs an operator."""

    steps: tuple[str, ...]
    time: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A saga after `sequence` events.

    `undone` counts the steps that are not DONE, `active` those of which something is waited for, and `timed` those to
    which a time matters. `late` has the replies that came too late, so that each is recorded once. `restored`: a part
    of its journal may have been lost.
    """

    graph: Graph
    started: SagaStarted
    status: SagaStatus
    sequence: int
    update_time: Time
    steps: tuple[StepState, ...]
    undone: int
    active: int = 0
    timed: int = 0
    paused: bool = False
    pause_time: Time | None = None
    restored: bool = False
    cause: Cause | None = None
    stuck: StuckState | None = None
    stuck_count: int = 0
    output: Payload | None = None
    ending: SagaCompleted | SagaCompensated | SagaFailed | None = None
    late: frozenset[LateMark] = frozenset()

    @property
    def final(self) -> bool:
        """True when nothing can happen any more."""
        return self.status in FINAL

    @property
    def settled(self) -> bool:
        """True when nothing happens any more unless an operator has it go on."""
        return self.final or self.stuck is not None

    @property
    def going_back(self) -> bool:
        """True from the turning back on."""
        return self.cause is not None

    @property
    def committed(self) -> bool:
        """True when a pivot or retriable step may have had an effect: the saga cannot turn back."""
        return any(self.steps[i].unproven for i in self.graph.ends)

    def step(self, step_id: str) -> StepState:
        """Return a step's state. :raises KeyError: if there is no such step."""
        return self.steps[self.graph.index[step_id]]

    def with_steps(self, steps: tuple[StepState, ...]) -> State:
        """Return the state with other steps, counted."""
        active, timed = sum(step.active for step in steps), sum(step.timed for step in steps)
        return replace(self, steps=steps, active=active, timed=timed)
