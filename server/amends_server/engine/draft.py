"""A decision in the making: its events so far, the state that they lead to, and what follows from that by itself.

What is ready or due is dispatched, the saga ends, or it is stuck. The rules behind it stand in `evolve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from amends_server.engine.context import fill, making_of, missing_of, values_of
from amends_server.engine.data.jsonvalue import TemplateError
from amends_server.engine.data.making import Making, TooMuch
from amends_server.engine.definition import Kind, OnCompensationFailure
from amends_server.engine.due import step_deadline
from amends_server.engine.events import (
    Cause,
    CompensationDispatched,
    CompensationFailed,
    CompensationOmitted,
    DeadlinePassed,
    Event,
    LateReply,
    LateReplyRecorded,
    SagaCompensated,
    SagaCompleted,
    SagaStuck,
    SagaTurnedBack,
    StepDelayed,
    StepDispatched,
    StepFailed,
    StepGivenUp,
    StepRefused,
    StepSkipped,
)
from amends_server.engine.evolve import evolve
from amends_server.engine.graph import Node
from amends_server.engine.history import takes_late_replies
from amends_server.engine.payload import Error, Payload
from amends_server.engine.policy import Time
from amends_server.engine.state import BLOCKED, DONE, SagaStatus, State, StepStatus

TOOK_TOO_LONG = Error("DEADLINE_EXCEEDED", "The deadline of the step passed while its participant was at work.")

TURNED_BACK = Error("SAGA_TURNED_BACK", "The saga turned back while the next attempt was waited for.")


T = TypeVar("T")


class Draft:
    """A decision in the making: the events so far, and the state that they lead to."""

    __slots__ = ("_halted", "_hold", "_making", "events", "now", "state")

    def __init__(self, state: State, now: Time, *, hold: bool = False) -> None:
        self.events: list[Event] = []
        self.state = state
        self.now = now
        self._hold = hold
        self._making: Making | None = None
        self._halted = False  # within one walk back: a compensation has failed, so that no further one is begun

    @property
    def _holding(self) -> bool:
        """True if nothing may be dispatched, by an operator's wish or because the orchestrator is on its way out."""
        return self._hold or self.state.paused

    def add_late(self, step: str, attempt: int, compensation: bool, reply: LateReply) -> None:
        """Record a reply that came too late, once: participants may say the same again and again."""
        if (step, attempt, compensation, reply) not in self.state.late and takes_late_replies(self.state):
            self.add(LateReplyRecorded(self.now, step, attempt, compensation, reply))

    @property
    def making(self) -> Making:
        """What the templates of this decision share."""
        if self._making is None:
            self._making = making_of(self.state)
        return self._making

    def add(self, event: Event) -> None:
        """Take one more event and fold it."""
        self.events.append(event)
        self.state = evolve(self.state, event)

    def wake(self) -> None:
        """Do everything that is possible now, looking at every step."""
        self._meet_deadline()
        self._give_up_expired()
        self.advance(range(len(self.state.steps)))  # first, for it may turn the saga back: then no retry is sent
        self._dispatch_due()
        self.advance(())

    def advance(self, candidates: Iterable[int]) -> None:
        """Do what follows; going forward, only `candidates` can have become ready."""
        if self.state.final or self.state.status is SagaStatus.STUCK:
            return
        if self.state.started.deadline is not None and self.state.undone:
            self._meet_deadline()  # nobody may have woken the saga yet, and nothing is dispatched after it
        if self.state.going_back:
            self.go_back()
        else:
            self.go_forward(candidates)

    def go_forward(self, candidates: Iterable[int]) -> None:
        """Dispatch those of `candidates` that are ready; complete, or halt, if nothing is left to do."""
        state = self.state
        start_time = state.started.start_time
        if start_time is not None and self.now < start_time and state.status is SagaStatus.PENDING:
            return  # what has begun goes on, though the clock may have jumped back
        nodes = state.graph.nodes
        ready = [] if self._holding else [nodes[i] for i in candidates if self._ready(nodes[i])]
        if ready:
            self._dispatch_all(ready if state.graph.plain else self._sift(ready))
        if self.state.going_back:
            self.go_back()
        elif self.state.undone == 0:
            self._complete()
        elif self.state.active == 0 and not self._holding:
            self._halt()

    def go_back(self) -> None:
        """Walk the steps from the last to the first, and compensate those after which everything is clear."""
        graph = self.state.graph
        self._halted = self._halts and any(step.halts for step in self.state.steps)
        free = [True] * len(graph.nodes)
        for index in reversed(graph.order):
            if not (free[index] and self._clear(graph.nodes[index])):
                for before in graph.nodes[index].before:
                    free[before] = False
        if all(step.clear for step in self.state.steps):
            self.add(SagaCompensated(self.now))
        elif self.state.active == 0 and not self._holding:
            self._halt()

    def _clear(self, node: Node) -> bool:
        """Begin a step's undoing if it is owed; tell whether the steps before it need not wait for it."""
        step = self.state.steps[node.index]
        if step.clear:
            return True
        if step.action.open:
            return False
        if not node.step.owes_compensation:
            self.add(CompensationOmitted(self.now, node.step.id))
            return True
        match step.status:
            case StepStatus.COMPENSATION_FAILED:
                return step.passed_over or not self._halts
            case StepStatus.COMPENSATING if step.compensation.active:
                return False
            case _:
                return not self._holding and not self._halted and self._passes(node)

    def _passes(self, node: Node) -> bool:
        """Dispatch a compensation; True if that failed at once and the steps before it need not wait."""
        self._dispatch_compensation(node)
        failed = self.state.steps[node.index].status is StepStatus.COMPENSATION_FAILED
        self._halted = failed and self._halts
        return failed and not self._halts

    @property
    def _halts(self) -> bool:
        return self.state.graph.definition.on_compensation_failure is OnCompensationFailure.HALT

    def _ready(self, node: Node) -> bool:
        """Tell whether the first attempt of a step may be made now, or is due, because it was put off."""
        steps = self.state.steps
        step = steps[node.index]
        if step.action.due_time is not None:
            return step.action.attempts == 0 and step.action.due_time <= self.now
        return step.status is StepStatus.PENDING and all(steps[i].status in DONE for i in node.before)

    def _sift(self, ready: list[Node]) -> list[Node]:
        """Skip those that are not wanted, which makes others ready, and put off those with a delay; return the rest."""
        nodes = self.state.graph.nodes
        now: dict[int, Node] = {}
        told = False
        for node in ready:  # grows while it is read
            if self.state.going_back:
                break
            if node.index in now or not self._ready(node):
                continue
            if self.state.steps[node.index].action.attempts:  # begun again after a restore: it was wanted, and waited
                now[node.index] = node
                continue
            delayed, delay_us = self.state.steps[node.index].active, node.step.delay_us
            try:
                skipped = self._skips(node, others=told)  # also after its delay, which may have begun untold
            except TooMuch:
                self._put_off(node, delay_us or 0)
                continue
            told = True
            if skipped:
                ready.extend(nodes[i] for i in node.after)
            elif delay_us is not None and not delayed:
                self._put_off(node, delay_us)
            else:
                now[node.index] = node
        return list(now.values())

    def _put_off(self, node: Node, delay_us: int = 0) -> None:
        """Have a step that is ready begin later; without delay, in the next decision, which is made at once."""
        if not self.state.going_back and not self.state.steps[node.index].active:
            self.add(StepDelayed(self.now, node.step.id, self.now + delay_us))

    def _make(self, make: Callable[[Making], T], *, others: bool) -> T:
        """Make something, if this decision may make so much. `others`: it has made something else, or will soon again.

        :raises TooMuch: if another decision may.
        :raises TemplateError: if none can.
        """
        try:
            return make(self.making)
        except TooMuch:
            if others:
                raise
        self._making = making_of(self.state)  # what else was made in this decision shall not be to its harm
        try:
            return make(self.making)
        except TooMuch as problem:
            raise TemplateError(str(problem)) from None

    def _skips(self, node: Node, *, others: bool) -> bool:
        """Settle a step that is not to be run: its condition is false, or cannot be told.

        :raises TooMuch: if another decision can tell it.
        """
        when = node.when
        try:
            if when is None or self._make(lambda making: when.holds(values_of(self.state, making)), others=others):
                return False
        except TooMuch:
            raise
        except TemplateError as problem:
            message = f"The condition of step `{node.step.id}` cannot be told. {problem}"
            self._refuse(node, Error("CONDITION_INVALID", message))
        else:
            self.add(StepSkipped(self.now, node.step.id))
        return True

    def _dispatch_all(self, nodes: list[Node]) -> None:
        """Record the intent to send first attempts, of none if one turns the saga back.

        The inputs of some may be left to the next decision; at least one is made in each.
        """
        inputs: list[tuple[Node, Payload | Error | None]] = []
        for node in nodes:
            try:
                inputs.append((node, self._input(node, others=bool(inputs))))
            except TooMuch:
                self._put_off(node)
        if not self.state.going_back:
            for node, frozen in inputs:
                if not isinstance(frozen, Error):
                    self._dispatch(node, frozen)

    def _input(self, node: Node, *, others: bool) -> Payload | Error | None:
        """Make a step's input; None where it is the saga's. If it cannot be made, the step has failed.

        :raises TooMuch: if another decision can make it.
        """
        if self.state.steps[node.index].action.attempts:  # begun again after a restore: it is made and frozen
            return None
        made, requires = node.input, node.requires
        try:
            missing = self._make(lambda m: missing_of(requires, self.state, m), others=others) if requires else ()
            if missing:
                message = f"Step `{node.step.id}` needs what is not there: {', '.join(missing)}."
                return self._refuse(node, Error("REQUIREMENT_MISSING", message))
            return self._make(lambda m: fill(made, self.state, making=m), others=others) if made else None
        except TooMuch:
            raise
        except TemplateError as problem:
            message = f"The input of step `{node.step.id}` cannot be made. {problem}"
            return self._refuse(node, Error("INPUT_INVALID", message))

    def _refuse(self, node: Node, error: Error) -> Error:
        """Fail a step before its call."""
        self.add(StepRefused(self.now, node.step.id, 0, error))
        self.failed(node, error)
        return error

    def _dispatch(self, node: Node, frozen: Payload | None = None) -> None:
        attempt = self.state.steps[node.index].action.attempts + 1
        self.add(StepDispatched(self.now, node.step.id, attempt, frozen))

    def _dispatch_compensation(self, node: Node) -> None:
        """Record the intent to send the next attempt of a compensation, or that there can be none."""
        call = self.state.steps[node.index].compensation
        attempt = call.attempts + 1
        try:
            made = node.arguments if attempt == 1 else None
            others = self.state.active > 0
            frozen = self._make(lambda m: fill(made, self.state, making=m), others=others) if made else None
        except TooMuch:  # its turn comes when one of those that are active has ended
            return
        except TemplateError as problem:
            error = Error(
                "ARGUMENTS_INVALID", f"The arguments of the compensation of `{node.step.id}` cannot be made. {problem}"
            )
            self.add(CompensationFailed(self.now, node.step.id, 0, error))
            return
        self.add(CompensationDispatched(self.now, node.step.id, attempt, frozen))

    def failed(self, node: Node, error: Error) -> None:
        """Turn the saga back because of a step, if it can turn."""
        if not self.state.going_back and not self.state.committed and node.step.kind is not Kind.RETRIABLE:
            self.turn_back(StepFailed(node.step.id, error))

    def turn_back(self, cause: Cause) -> None:
        """Go back from here; attempts that were waited for will not be made."""
        self.add(SagaTurnedBack(self.now, cause))
        for node, step in zip(self.state.graph.nodes, self.state.steps, strict=True):
            if step.action.rests:
                error = None if step.action.waiting else step.action.error
                self.add(StepGivenUp(self.now, node.step.id, step.action.attempts, error or TURNED_BACK))

    def _meet_deadline(self) -> None:
        deadline, state = self.state.started.deadline, self.state
        forward = state.status in (SagaStatus.PENDING, SagaStatus.RUNNING)
        if deadline is not None and self.now >= deadline and forward and not state.committed:
            self.turn_back(DeadlinePassed(deadline))

    def _give_up_expired(self) -> None:
        """Make no attempt and wait for no participant after the deadline of the step."""
        if self._holding or self.state.active == 0:
            return
        for node, step in zip(self.state.graph.nodes, self.state.steps, strict=True):
            deadline, call = step_deadline(node, step.action), self.state.steps[node.index].action
            if deadline is not None and deadline <= self.now and call.rests and (call.waiting or call.error):
                error = TOOK_TOO_LONG if call.waiting else call.error or TOOK_TOO_LONG
                self.add(StepGivenUp(self.now, node.step.id, call.attempts, error))
                self.failed(node, error)

    def _dispatch_due(self) -> None:
        """Send further attempts that are due; first ones were ready."""
        if self._holding or self.state.active == 0:
            return
        for node in self.state.graph.nodes:
            step = self.state.steps[node.index]
            if step.action.attempts and step.action.due_time is not None and step.action.due_time <= self.now:
                self._dispatch(node)
            elif step.compensation.due_time is not None and step.compensation.due_time <= self.now:
                self._dispatch_compensation(node)

    def _complete(self) -> None:
        template = self.state.graph.output
        try:
            output = self._make(lambda m: fill(template, self.state, making=m), others=False) if template else None
            self.add(SagaCompleted(self.now, output))
        except TemplateError as problem:
            self._fail_output(Error("OUTPUT_INVALID", f"The output of the saga cannot be made. {problem}"))

    def _fail_output(self, error: Error) -> None:
        if self.state.committed:  # all is done and cannot be undone, so the saga ends, and says what it lacks
            self.add(SagaCompleted(self.now, None, error))
        else:
            self.turn_back(StepFailed("", error))
            self.go_back()

    def _halt(self) -> None:
        blocked = [
            node.step.id
            for node, step in zip(self.state.graph.nodes, self.state.steps, strict=True)
            if step.status in BLOCKED and (not self.state.going_back or step.status is StepStatus.COMPENSATION_FAILED)
        ]
        assert blocked, f"a saga that neither moves nor is blocked: {self.state!r}"
        self.add(SagaStuck(self.now, tuple(blocked)))
