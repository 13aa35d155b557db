"""What must never break, checked event by event from the journal alone, with none of the engine's own bookkeeping.

Each check carries the number of its invariant in its message.
"""

from __future__ import annotations

from amends.testing.simulation.seen import LOST, OPERATOR, Seen
from amends_server.engine.definition import Kind, OnCompensationFailure
from amends_server.engine.events import (
    AttemptWithdrawn,
    CompensationDispatched,
    CompensationFailed,
    CompensationOmitted,
    CompensationRetryScheduled,
    CompensationSucceeded,
    DeadlinePassed,
    Event,
    LateReplyRecorded,
    Resolution,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaPaused,
    SagaRestored,
    SagaResumed,
    SagaRetried,
    SagaStarted,
    SagaStuck,
    SagaTurnedBack,
    StepDeferred,
    StepDelayed,
    StepDispatched,
    StepErrorHandled,
    StepFailed,
    StepGivenUp,
    StepOutputRefused,
    StepRefused,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepSucceeded,
)
from amends_server.engine.graph import Graph, ancestors
from amends_server.engine.policy import Time


class Observer:
    """Follows a journal and asserts that every event may stand where it stands."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps = {node.step.id: Seen() for node in graph.nodes}
        self.back: SagaTurnedBack | None = None
        self.end: SagaCompleted | SagaCompensated | SagaFailed | None = None
        self.paused = False
        self.pause_time = 0
        self.restored = False
        self.stuck = False
        self.deadline: Time | None = None
        self.start_time: Time | None = None
        self.begun = False
        known = ancestors([node.before for node in graph.nodes], graph.order)
        self._later = {
            node.step.id: [other.step.id for other in graph.nodes if known[other.index] >> node.index & 1]
            for node in graph.nodes
        }

    @property
    def committed(self) -> bool:
        return any(self.steps[self.graph.nodes[i].step.id].unproven for i in self.graph.ends)

    def decision(self, events: list[Event]) -> None:
        """Check the events of one decision."""
        for event in events:
            assert self.end is None, f"I2: {event!r} after {self.end!r}"
            self._see(event)
        turned = any(isinstance(event, SagaTurnedBack) for event in events)
        dispatched = [event for event in events if isinstance(event, StepDispatched)]
        assert not (turned and dispatched), f"I3: {dispatched!r} in the decision that turned back"

    def _see(self, event: Event) -> None:
        self.begun = self.begun or hasattr(event, "step")
        match event:
            case SagaStarted():
                self.deadline, self.start_time = event.deadline, event.start_time
            case StepSkipped() | StepDelayed():
                self._see_not_run(self.steps[event.step], event)
            case StepDeferred() | StepOutputRefused() | StepErrorHandled():
                self._see_more(self.steps[event.step], event)
            case StepDispatched():
                self._see_dispatch(event)
            case StepSucceeded() | StepRefused() | StepRetryScheduled() | StepGivenUp():
                self._see_outcome(self.steps[event.step], event)
            case CompensationDispatched():
                self._see_undo(event)
            case CompensationSucceeded() | CompensationRetryScheduled() | CompensationFailed():
                self._see_undo_outcome(self.steps[event.step], event)
            case CompensationOmitted():
                compensation = self.graph.node(event.step).step.compensation
                assert compensation is not None, f"I4: {event!r} of a step that cannot be undone"
                assert compensation.not_needed, f"I4: {event!r} of a step that is owed its compensation"
                self._check_order(event.step, "omitted")
                self.steps[event.step].unproven.clear()
            case AttemptWithdrawn():
                self._see_withdrawal(self.steps[event.step], event)
            case StepResolved():
                self._see_resolution(self.steps[event.step], event)
            case _:
                self._see_saga(event)

    def _see_dispatch(self, event: StepDispatched) -> None:
        seen, node = self.steps[event.step], self.graph.node(event.step)
        assert self.back is None, f"I3: {event!r} after {self.back!r}"
        assert not self.paused, f"{event!r} while paused"
        assert not self.stuck, f"{event!r} while stuck"
        assert event.attempt == seen.attempts + 1, f"I30: {event!r} out of count"
        assert not seen.open, f"{event!r} while an attempt is open"
        before = [self.steps[self.graph.nodes[i].step.id] for i in node.before]
        assert all(b.done or b.skipped for b in before), f"I7: {event!r} before its predecessors are done"
        late = self.deadline is not None and event.time >= self.deadline
        assert not late or self.committed, f"I22: {event!r} after the deadline"
        first = all(other.attempts == 0 for other in self.steps.values())  # later the clock may have jumped back
        early = first and self.start_time is not None and event.time < self.start_time
        assert not early, f"{event!r} before the start time"
        assert not seen.skipped, f"{event!r} of a step that is not to be run"
        assert not seen.delayed or (seen.due is not None and event.time >= seen.due), f"{event!r} before its delay"
        seen.attempts, seen.open, seen.due, seen.delayed = event.attempt, True, None, False
        seen.first_time = event.time if seen.first_time is None else seen.first_time
        seen.unproven.add(event.attempt)
        seen.counted, seen.asked = (seen.counted + 1, 0) if seen.work is None else (seen.counted, seen.asked + 1)
        made = seen.counted if seen.work is None else seen.asked
        assert node.retry.allows(made - 1), f"I39: {event!r} beyond the attempts that its policy allows"

    def _see_outcome(self, seen: Seen, event: StepSucceeded | StepRefused | StepRetryScheduled | StepGivenUp) -> None:
        called = not isinstance(event, StepRefused) or event.attempt > 0
        brought = seen.waits  # by whoever holds a token, also of an attempt before
        assert seen.open == called or brought or isinstance(event, StepGivenUp), f"{event!r} of no open attempt"
        assert event.attempt == seen.attempts or not called or brought, f"{event!r} of another attempt"
        spoken_for = {seen.work} if brought else {event.attempt, seen.work}
        keeps_work = isinstance(event, StepRetryScheduled) and not event.refused and seen.open
        seen.work = seen.work if keeps_work else None
        seen.open, seen.due, seen.delayed = False, None, False
        match event:
            case StepSucceeded():
                seen.done = True
            case StepRefused():
                seen.failed = True
                seen.unproven -= seen.unproven if event.stored else spoken_for
                if self.restored and event.stored and not self.graph.node(event.step).rules:
                    self._absolve(self._later[event.step])
            case StepRetryScheduled():
                assert self.back is None, f"I3: {event!r} after turning back"
                seen.due = event.due_time
                seen.unproven -= spoken_for if event.refused else set()
            case StepGivenUp():
                seen.failed = True
                limit = self._limit(event.step) if event.error.code == "DEADLINE_EXCEEDED" else None
                assert limit is None or event.time >= limit, f"I22: {event!r} before {limit}"

    def _see_withdrawal(self, seen: Seen, event: AttemptWithdrawn) -> None:
        if event.compensation:
            assert seen.undo_open, f"{event!r} of an attempt that is not open"
            assert event.attempt == seen.undo_attempts, f"{event!r} of another attempt"
            seen.undo_open, seen.undo_due = False, event.due_time or event.time
        else:
            assert seen.open, f"{event!r} of an attempt that is not open"
            assert event.attempt == seen.attempts, f"{event!r} of another attempt"
            seen.open, seen.due = False, event.due_time or event.time
            seen.unproven.discard(event.attempt)
            seen.counted, seen.asked = seen.counted - (seen.work is None), seen.asked - (seen.work is not None)

    def _see_not_run(self, seen: Seen, event: StepSkipped | StepDelayed) -> None:
        assert self.back is None, f"I3: {event!r} after {self.back!r}"
        assert not self.paused, f"{event!r} while paused"
        assert seen.attempts == 0, f"{event!r} of a step that was called"
        assert not seen.delayed or isinstance(event, StepSkipped), f"{event!r} of a step that waits"
        assert seen.due is None or event.time >= seen.due, f"{event!r} before its delay"
        before = [self.steps[self.graph.nodes[i].step.id] for i in self.graph.node(event.step).before]
        assert all(b.done or b.skipped for b in before), f"I7: {event!r} before its predecessors are done"
        if isinstance(event, StepSkipped):
            seen.skipped = seen.without_effect = True
            seen.due = None
        else:
            seen.due, seen.delayed = event.due_time, True

    def _see_more(self, seen: Seen, event: StepDeferred | StepOutputRefused | StepErrorHandled) -> None:
        match event:
            case StepDeferred():
                assert self.back is None, f"I3: {event!r} after {self.back!r}"
                assert seen.open, f"{event!r} of an attempt that is not open"
                if seen.work is None:
                    seen.work = event.attempt
                else:
                    seen.unproven.discard(event.attempt)
                seen.open, seen.due, seen.asked = False, event.due_time, 0
            case StepOutputRefused():
                assert seen.open or seen.waits, f"{event!r} of an attempt that is not open"
                seen.open, seen.due, seen.work, seen.failed = False, None, None, True
            case StepErrorHandled():
                assert self.back is None, f"I21: {event!r} after {self.back!r}"
                assert seen.failed, f"{event!r} of a step that has not failed"
                assert not seen.unproven, f"I1: {event!r} of a step that may have had an effect"
                seen.skipped = seen.without_effect = True

    def _see_undo(self, event: CompensationDispatched) -> None:
        seen, step = self.steps[event.step], self.graph.node(event.step).step
        assert self.back is not None, f"I4: {event!r} on the way forward"
        assert step.owes_compensation, f"I9: {event!r} of a step without compensation"
        assert step.kind is Kind.COMPENSATABLE, f"I7: {event!r} of a {step.kind}"
        assert not self.paused, f"{event!r} while paused"
        assert not self.stuck, f"{event!r} while stuck"
        assert seen.unproven, f"I4: {event!r} though nothing can be there to undo"
        assert not seen.open, f"I6: {event!r} while the action is in flight"
        assert not seen.undo_open, f"{event!r} while an attempt is open"
        assert event.attempt == seen.undo_attempts + 1, f"I30: {event!r} out of count"
        if seen.undo_due is None:
            self._check_order(event.step, "compensated")
            self._check_halt(event)
        seen.undo_attempts, seen.undo_open, seen.undo_due = event.attempt, True, None

    def _check_order(self, step: str, how: str) -> None:
        """I5: a step's undoing begins when all steps after it are undone, or have failed to be and are passed over."""
        for later in map(self.steps.__getitem__, self._later[step]):
            assert not later.open, f"I5: {step} {how} while a step after it is in flight"
            passed = later.undo_failed and (self._continues or later.passed_over)
            assert passed or not later.unproven, f"I5: {step} {how} before a step after it"

    def _check_halt(self, event: CompensationDispatched) -> None:
        halted = [s for s, seen in self.steps.items() if seen.undo_failed and not seen.passed_over]
        assert self._continues or not halted, f"HALT: {event!r} after the failure of {halted}"

    @property
    def _continues(self) -> bool:
        return self.graph.definition.on_compensation_failure is OnCompensationFailure.CONTINUE

    def _see_undo_outcome(
        self, seen: Seen, event: CompensationSucceeded | CompensationRetryScheduled | CompensationFailed
    ) -> None:
        assert seen.undo_open == (event.attempt > 0), f"{event!r} of a compensation that is not open"
        seen.undo_open, seen.undo_due = False, None
        match event:
            case CompensationSucceeded():
                seen.unproven.clear()
            case CompensationRetryScheduled():
                seen.undo_due = event.due_time
            case CompensationFailed():
                seen.undo_failed, seen.passed_over = True, False

    def _see_resolution(self, seen: Seen, event: StepResolved) -> None:
        assert not seen.open, f"{event!r} while its action is in flight"
        assert not seen.undo_open, f"{event!r} while its compensation is in flight"
        seen.due = seen.undo_due = seen.work = None
        seen.delayed = seen.without_effect = False
        self.stuck = False
        match event.resolution:
            case Resolution.SUCCEEDED:
                assert self.back is None, f"{event!r} on the way back"
                seen.done = seen.by_operator = True
                seen.unproven.add(OPERATOR)
            case Resolution.COMPENSATED:
                if self.restored:
                    self._absolve(list(self.steps))
                seen.unproven.clear()
                seen.undo_failed = False
            case Resolution.SKIPPED if self.back:
                seen.undo_failed = seen.passed_over = True
            case Resolution.SKIPPED:
                seen.skipped = True

    def _see_saga(self, event: Event) -> None:
        match event:
            case SagaTurnedBack():
                assert self.back is None, f"I21: {event!r} after {self.back!r}"
                assert not self.committed, f"I7: {event!r} though a pivot or retriable step may have had its effect"
                if isinstance(event.cause, StepFailed) and event.cause.step:
                    kind = self.graph.node(event.cause.step).step.kind
                    assert kind is not Kind.RETRIABLE, f"I7: {event!r} for a step that only goes forward"
                if isinstance(event.cause, DeadlinePassed):
                    assert self.deadline is not None, f"I22: {event!r} without a deadline"
                    assert event.time >= self.deadline, f"I22: {event!r} early"
                self.back, self.stuck = event, False
                for seen in self.steps.values():
                    if seen.delayed:
                        seen.due, seen.delayed = None, False
            case SagaStuck():
                assert event.steps, "STUCK for no reason"
                left = [step for step, seen in self.steps.items() if seen.unproven and not seen.undo_failed]
                assert not (self.back and self._continues and left), f"CONTINUE: {event!r}, and {left} can be undone"
                assert self.quiet, "STUCK early"
                self.stuck = True
            case SagaRetried():
                self._see_retry(event.time)
            case SagaPaused():
                self.paused, self.pause_time = True, event.time
            case SagaResumed():
                self.paused = False
                for seen in self.steps.values():
                    if seen.first_time is not None and (seen.open or seen.due is not None or seen.waits):
                        seen.first_time += event.time - max(self.pause_time, seen.first_time)
            case SagaRestored():
                self._see_restore(event.time)
            case SagaCompleted():
                assert self.back is None, f"I21: {event!r} after {self.back!r}"
                assert all(s.done or s.skipped for s in self.steps.values()), f"I1: {event!r} with steps not done"
                self.end = event
            case SagaCompensated():
                assert self.back is not None, "I21: COMPENSATED without a cause"
                left = [step for step, s in self.steps.items() if s.unproven or s.open or s.undo_open]
                assert not left, f"I8: {event!r}, and {left} not undone"
                self.end = event
            case SagaFailed():
                assert self.stuck, f"{event!r} of a saga that is not stuck"
                self.end = event
            case LateReplyRecorded():
                pass
            case _:
                raise AssertionError(f"I30: {event!r} cannot stand here")

    def _see_restore(self, time: Time) -> None:
        """On the way forward all begins again, unless the saga can never have turned back since; the way back stays."""
        self.restored = True
        ends = [self.steps[self.graph.nodes[i].step.id] for i in self.graph.ends]
        past = any(end.unproven and (end.done or end.skipped) for end in ends)
        self.stuck = self.stuck and (past or self.back is not None)
        for seen in self.steps.values() if self.back is None else ():
            if not (past or seen.skipped or seen.by_operator):
                seen.done = seen.failed = seen.open = seen.delayed = False
                seen.due = seen.work = None
                seen.first_time, seen.counted, seen.asked = None, 0, 0
            if not (seen.skipped or seen.done):
                seen.unproven.add(LOST)
                seen.due = time if seen.waits else seen.due

    def _absolve(self, steps: list[str]) -> None:
        """I7: what was refused, or called undone, before a pivot speaks for the pivot."""
        for end in (self.graph.nodes[i].step.id for i in self.graph.ends):
            seen = self.steps[end]
            if end in steps and not (seen.done or seen.skipped or seen.failed or seen.open or seen.due or seen.work):
                seen.unproven.clear()

    def _see_retry(self, time: Time) -> None:
        """Retried compensations begin anew, in order; waiting calls and blocked actions are due now."""
        self.stuck = False
        for seen in self.steps.values():
            seen.undo_failed = seen.passed_over = False
            seen.undo_due = time if seen.undo_due is not None else None
            blocked = self.back is None and seen.failed and not (seen.done or seen.skipped)
            if blocked:
                seen.first_time, seen.counted = time, 0
            if seen.due is not None or seen.waits or blocked:
                seen.due, seen.failed = time, False

    def next_time(self) -> Time | None:
        """When the saga has to be looked at again, by the journal alone."""
        times = [t for s in self.steps.values() for t in (s.due, s.undo_due) if t is not None and not self.paused]
        if not self.paused:
            times += [limit for step, s in self.steps.items() if s.waits and (limit := self._limit(step)) is not None]
            if not self.begun and self.back is None and self.start_time is not None:
                times.append(self.start_time)
        forward = self.back is None and self.end is None and not self.stuck
        if forward and self.deadline is not None and not self.committed:
            times.append(self.deadline)
        return min(times, default=None)

    def _limit(self, step: str) -> Time | None:
        """When waiting for a participant that is at work must end."""
        first_time, deadline_us = self.steps[step].first_time, self.graph.node(step).step.deadline_us
        return None if first_time is None or deadline_us is None else first_time + deadline_us

    def open_calls(self) -> set[tuple[str, bool, int]]:
        """The calls whose intent is recorded and whose outcome is not: step, compensation, attempt."""
        actions = {(step, False, s.attempts) for step, s in self.steps.items() if s.open}
        return actions | {(step, True, s.undo_attempts) for step, s in self.steps.items() if s.undo_open}

    @property
    def quiet(self) -> bool:
        """True when nothing is in flight or waited for."""
        return not any(
            s.open or s.undo_open or s.due is not None or s.undo_due is not None or s.waits for s in self.steps.values()
        )
