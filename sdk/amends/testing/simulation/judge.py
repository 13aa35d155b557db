"""What must never break, checked whenever something becomes durable, is sent, is answered or has an effect.

It knows the journals from the disk alone and the effects from the participants alone; nothing of the server's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from amends.testing.simulation.observer import Observer
from amends.testing.simulation.story import Story
from amends.v1 import participant_pb2
from amends_server.codec import decode
from amends_server.engine.commands import Verdict
from amends_server.engine.definition import Step
from amends_server.engine.due import CallOrder, due
from amends_server.engine.events import (
    CompensationDispatched,
    DeadlinePassed,
    Event,
    LateReplyRecorded,
    Resolution,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaRetried,
    SagaStarted,
    SagaStuck,
    SagaTurnedBack,
    StepDispatched,
    StepErrorHandled,
    StepRefused,
    StepResolved,
    StepSkipped,
)
from amends_server.engine.evolve import begin, evolve, fold
from amends_server.engine.graph import Graph
from amends_server.engine.policy import Time
from amends_server.engine.state import SagaStatus, State
from amends_server.store.protocol import Append, Birth, SagaKey


@dataclass
class Known:
    """What the disk says of a saga."""

    birth: Birth
    graph: Graph
    observer: Observer
    state: State | None = None
    events: list[Event] = field(default_factory=list[Event])
    bodies: list[bytes] = field(default_factory=list[bytes])
    intents: dict[tuple[str, bool, int], int] = field(default_factory=dict[tuple[str, bool, int], int])
    """The epochs in which calls were intended: step, compensation, attempt."""

    @property
    def final(self) -> bool:
        return self.state is not None and self.state.final


class Judge:
    """Asserts; the first thing that is wrong is kept in `violation`, and the world stops."""

    def __init__(
        self, story: Story, graphs: Mapping[str, Graph], put_right: Callable[[SagaKey, StepResolved], None]
    ) -> None:
        self._story = story
        self._graphs = graphs
        self._put_right = put_right
        self.violation = ""
        self.sagas: dict[SagaKey, Known] = {}
        self.acknowledged: dict[SagaKey, bytes] = {}
        self.cancelled: set[SagaKey] = set()
        self.spoilt: set[SagaKey] = set()
        """Sagas whose records were made unreadable: they end nowhere."""
        self.up_since: Time = 0
        self._frozen_bytes: dict[str, bytes] = {}
        self._sent: set[tuple[str, int]] = set()
        self._in_flight: set[tuple[SagaKey, str, int, int]] = set()

    @contextmanager
    def checking(self) -> Generator[None]:
        """Keep what is found wrong inside of the block."""
        try:
            yield
        except AssertionError as error:
            self.violation = self.violation or (str(error) or repr(error))

    def must(self, holds: bool, what: str) -> None:
        """Say what is wrong unless it holds."""
        if not holds:
            self.violation = self.violation or what

    def unfinished(self) -> list[SagaKey]:
        """Return the sagas that have to go on."""
        return [key for key, known in self.sagas.items() if not known.final and key not in self.spoilt]

    # The disk

    def appended(self, append: Append) -> None:
        """An append became durable."""
        with self.checking():
            known = self.sagas.get(append.key)
            if known is None:
                assert append.birth is not None, f"I30: the journal of {append.key} begins with nothing"
                graph = self._graphs[append.birth.definition_digest]
                known = self.sagas[append.key] = Known(append.birth, graph, Observer(graph))
            assert append.records[0].sequence == len(known.events) + 1, f"I30: {append.key} has a hole, or two of one"
            events = [decode(append.key, record) for record in append.records]
            for event in events:
                self._story.tell("journal", f"{append.key.saga_id} {_short(event)}")
            self._fold(append, known, events)
            for event in events:
                self._note(append.key, known, event)

    def _fold(self, append: Append, known: Known, events: list[Event]) -> None:
        known.observer.decision(events)
        for event in events:
            known.state = _evolve(known, event)
            if isinstance(event, StepDispatched | CompensationDispatched):
                intent = event.step, isinstance(event, CompensationDispatched), event.attempt
                known.intents[intent] = append.head.epoch
        known.events += events
        known.bodies += [record.body for record in append.records]
        head, state = append.head, known.state
        assert state is not None
        assert (head.sequence, head.status, head.paused) == (state.sequence, state.status, state.paused), (
            "I30: the head"
        )
        assert head.due_time == due(state).next_time == known.observer.next_time(), (
            f"I23: {append.key} is due at {known.observer.next_time()}, and the row says {head.due_time}"
        )

    def _note(self, key: SagaKey, known: Known, event: Event) -> None:
        match event:
            case SagaStarted():
                assert event.definition_digest == known.birth.definition_digest, "I33: another definition"
            case SagaTurnedBack(cause=DeadlinePassed(deadline)):
                self._story.see("deadline won")
                if deadline < self.up_since:
                    self._story.see("deadline while down")
            case StepResolved():
                self._put_right(key, event)
                self._story.see(f"resolved as {event.resolution.name}")
            case SagaStuck():
                way = "back" if known.observer.back else "forward"
                self._story.see(f"saga stuck on the way {way}")
            case SagaRetried():
                self._story.see("retried by an operator")
            case SagaFailed():
                self._story.see("given up")
            case LateReplyRecorded():
                self._story.see("late reply recorded")
            case StepErrorHandled():
                self._story.see("error handled by a rule")
            case StepSkipped():
                self._story.see("step skipped by its condition")
            case StepRefused() if event.attempt > 1 and not event.stored and known.observer.steps[event.step].unproven:
                self._story.see("verdict proves nothing for earlier attempts")
            case SagaCompleted() | SagaCompensated():
                assert not (isinstance(event, SagaCompleted) and key in self.cancelled), (
                    f"I21: the cancel of {key.saga_id} was accepted, and it completed"
                )
            case _:
                pass

    # The network

    def sent(
        self,
        epoch: int,
        order: CallOrder,
        request: participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest,
        *,
        stale: bool = False,
    ) -> None:
        """A call is about to leave the process. One of a stale process is as one that was long under way (I26)."""
        with self.checking():
            call = request.call
            key = SagaKey(call.namespace, call.saga_id)
            what = f"{call.key} #{call.attempt}"
            known = self.sagas.get(key)
            assert known is not None, f"I10: {what} was sent of a saga that is not on disk"
            intent = call.step, order.compensation, call.attempt
            assert known.intents.get(intent) == epoch, f"I10, I26: {what} was sent by who never intended it"
            if stale:
                self._story.see("call of a process that was succeeded")
            else:
                assert not known.final, f"I2: {what} was sent after the end"
                assert intent in known.observer.open_calls(), f"I10: {what} was sent without intent"
                assert order.compensation or known.observer.back is None, f"I3: {what} was sent after the turning back"
            assert (call.key, call.attempt) not in self._sent, f"I27: {what} was sent twice"
            self._sent.add((call.key, call.attempt))
            wanted = f"{key.namespace}/{key.saga_id}/{call.step}/{'compensate' if order.compensation else 'execute'}"
            assert call.key == wanted, f"I11: {call.key} is not {wanted}"
            assert call.definition_version == known.birth.definition_version, f"I33: {what} has another version"
            assert request.action == known.graph.node(call.step).step.action, f"I33: {what} asks for {request.action}"
            self._check_bytes(request)
            if order.compensation:
                running = [each for each in self._in_flight if each[:3] == (key, call.step, epoch)]
                assert not running, f"I6: {what} was sent while an Execute is in flight"
            else:
                self._in_flight.add((key, call.step, epoch, call.attempt))

    def over(self, epoch: int, order: CallOrder, key: SagaKey) -> None:
        """The process was told how a call ended."""
        if not order.compensation:
            self._in_flight.discard((key, order.node.step.id, epoch, order.attempt))

    def _check_bytes(self, request: participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest) -> None:
        same = type(request)()
        same.CopyFrom(request)  # type: ignore[arg-type]
        same.call.ClearField("attempt")
        same.call.ClearField("epoch")
        same.call.ClearField("expire_time")
        same.call.ClearField("completion_token")
        data = same.SerializeToString(deterministic=True)
        first = self._frozen_bytes.setdefault(request.call.key, data)
        assert data == first, f"I12: another request under the key {request.call.key}"

    # Clients

    def start_acknowledged(self, key: SagaKey, fingerprint: bytes) -> None:
        """A client was told that its saga is started."""
        with self.checking():
            known = self.sagas.get(key)
            assert known is not None, f"I20, I35: the start of {key.saga_id} was acknowledged and is not on disk"
            first = self.acknowledged.setdefault(key, fingerprint)
            assert first == fingerprint, f"I19: {key.saga_id} was acknowledged for two contents"

    def shown(self, key: SagaKey, sequence: int) -> None:
        """A client was shown a saga."""
        with self.checking():
            known = self.sagas.get(key)
            assert known is not None, f"I35: {key.saga_id} was shown and is not on disk"
            assert sequence <= len(known.events), f"I35: {key.saga_id} was shown as it is not on disk"

    def settled(self, key: SagaKey, sequence: int) -> None:
        """A client that waited was told that a saga is final or STUCK: it must have been so, at that event, on disk."""
        self.shown(key, sequence)
        with self.checking():
            known = self.sagas[key]
            state = fold(known.graph, known.events[:sequence])
            assert state.settled, (
                f"I35: a client was told that {key.saga_id} has settled, and at event {sequence} it is {state.status}"
            )
            self._story.see("waited for the end")

    def cancel_accepted(self, key: SagaKey) -> None:
        with self.checking():
            known = self.sagas[key]
            assert known.observer.back is not None, f"I21, I35: the cancel of {key.saga_id} is not on disk"
            self.cancelled.add(key)
            self._story.see("cancel won")

    def rejected(self, key: SagaKey, reason: str) -> None:
        """A client was told that a saga's state does not allow something: that state must be durable."""
        with self.checking():
            known = self.sagas.get(key)
            assert known is not None, f"I35: {reason} of {key.saga_id}, which is not on disk"
            state = known.state
            assert state is not None
            match reason:
                case "SAGA_COMPLETED":
                    assert state.status is SagaStatus.COMPLETED, f"I21: {reason}, and {key.saga_id} is {state.status}"
                    self._story.see("cancel lost to completion")
                case "SAGA_FAILED" | "SAGA_FINAL":
                    assert state.final, f"I21: {reason}, and {key.saga_id} is {state.status}"
                case "PIVOT_DISPATCHED":
                    dispatched = any(
                        state.steps[i].action.attempts or state.steps[i].resolution for i in state.graph.ends
                    )
                    assert dispatched, f"I21: {reason}, and {key.saga_id} has not dispatched it"
                    self._story.see("cancel lost to the pivot")
                case _:
                    pass

    def watched(self, key: SagaKey, after: int, sequence: int, body: bytes) -> None:
        """A watcher got an event."""
        with self.checking():
            assert sequence == after + 1, f"I36: a watcher of {key.saga_id} got {sequence} after {after}"
            known = self.sagas.get(key)
            assert known is not None, f"I36: a watcher got an event of {key.saga_id}, which is not on disk"
            assert sequence <= len(known.bodies), f"I36: a watcher of {key.saga_id} got an event that is not on disk"
            assert known.bodies[sequence - 1] == body, f"I36: a watcher of {key.saga_id} got another event {sequence}"

    def watch_ended(self, key: SagaKey, after: int) -> None:
        with self.checking():
            known = self.sagas[key]
            assert known.final, f"I36: a watch ended, and {key.saga_id} has not"
            assert after == len(known.events), f"I36: a watch ended before the last event of {key.saga_id}"
            self._story.see("watch ended with the saga")

    # The end

    def at_rest(self, effects: Callable[[SagaKey, str], int]) -> None:
        """Everything is over, and all that was late has landed."""
        with self.checking():
            for key in self.acknowledged:
                assert key in self.sagas, f"I20: {key.saga_id} was acknowledged and is lost"
            for key, known in self.sagas.items():
                if key in self.spoilt:
                    continue
                assert known.final, f"I28, I39: {key.saga_id} is {known.state and known.state.status} and does not end"
                self._story.see(f"ended {known.state.status.name}" if known.state else "")
                self._check_effects(key, known, effects)

    def _check_effects(self, key: SagaKey, known: Known, effects: Callable[[SagaKey, str], int]) -> None:
        match known.observer.end:
            case SagaCompleted():
                wanted = [
                    step for step, seen in known.observer.steps.items() if not seen.skipped
                ]  # nor handled by a rule
                missing = [step for step in wanted if effects(key, step) != 1]
                assert not missing, f"I1: {key.saga_id} is COMPLETED, and {missing} left no effect"
                idle = [step for step, seen in known.observer.steps.items() if seen.without_effect]
                left = [step for step in idle if effects(key, step)]
                assert not left, f"I1: {key.saga_id} is COMPLETED without {left}, which left an effect"
            case SagaCompensated():
                steps = [node.step for node in known.graph.nodes]
                left = [step.id for step in steps if not _may_leave(step) and effects(key, step.id)]
                assert not left, f"I1: {key.saga_id} is COMPENSATED, and {left} left an effect"
            case _:
                pass


def _may_leave(step: Step) -> bool:
    """Whether an effect may be there after all was undone. That of a pivot may not: then nothing was to be undone."""
    return step.compensation is not None and step.compensation.not_needed


def _evolve(known: Known, event: Event) -> State:
    if known.state is not None:
        return evolve(known.state, event)
    assert isinstance(event, SagaStarted), f"I30: a journal begins with {event!r}"
    return begin(known.graph, event)


def _short(event: Event) -> str:
    words = [type(event).__name__]
    for name in ("step", "attempt", "resolution"):
        value = getattr(event, name, None)
        if value is not None:
            words.append(value.name if isinstance(value, Resolution) else str(value))
    error = getattr(event, "error", None)
    cause = getattr(event, "cause", None)
    return " ".join([*words, *([error.code] if error else []), *([type(cause).__name__] if cause else [])])


def describe(verdict: Verdict) -> str:
    error = getattr(verdict, "error", None)
    return type(verdict).__name__ + (f" {error.code}" if error else "")
