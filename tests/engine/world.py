"""A world in which one saga runs: participants with a ledger, a network that loses and delays, operators, crashes.

All that happens is read from a tape of small numbers, which hypothesis makes and shrinks. A zero is always the smooth
way, and so is the end of the tape: from there on all calls succeed, and the saga must end or be stuck.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from amends.testing.simulation.observer import Observer
from amends_server.engine.commands import (
    Cancel,
    Command,
    Complete,
    Fail,
    InProgress,
    NotSent,
    Pause,
    Recover,
    Refused,
    Rejected,
    Resolve,
    Resume,
    Retry,
    Settle,
    Succeeded,
    Unknown,
    Verdict,
    Wake,
)
from amends_server.engine.decide import decide, start
from amends_server.engine.due import OwedCall, due, is_open, order_call
from amends_server.engine.events import (
    Cancelled,
    Event,
    Resolution,
    SagaCompensated,
    SagaCompleted,
    SagaRestored,
    StepGivenUp,
    StepResolved,
)
from amends_server.engine.evolve import evolve, fold
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Json, Payload
from amends_server.engine.state import SagaStatus, State, StepStatus
from tests.engine.build import NO, START, TIMEOUT, started
from tests.engine.endings import Endings

TURNS_MAX = 2_000
"""Far more than any tape and policy need: a saga that is not at rest by then never will be."""

WORKING = 3
"""A participant's choice to be at work, and from there on."""

FORWARD = (SagaStatus.PENDING, SagaStatus.RUNNING)


class Tape:
    """Numbers to take choices from; zeros after the end."""

    def __init__(self, numbers: bytes) -> None:
        self._numbers = list(reversed(numbers))

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def choose(self, count: int) -> int:
        return self._numbers.pop() % count if self._numbers and count > 1 else 0


@dataclass
class Entry:
    """What a participant holds under the key of one step, its barrier included."""

    effects: int = 0
    tombstone: bool = False
    refusal_stored: bool = False
    working: bool = False
    attempts: set[int] = field(default_factory=set[int])
    inputs: set[Payload | None] = field(default_factory=set["Payload | None"])


@dataclass
class Ledger:
    """The participants: at most one effect a key, first verdicts kept, nothing after the tombstone."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def execute(self, step: str, attempt: int, choice: int) -> Verdict:
        entry = self.entries.setdefault(step, Entry())
        entry.attempts.add(attempt)
        if choice >= WORKING and not (entry.tombstone or entry.refusal_stored or entry.effects):
            entry.working = True
            return InProgress(7 if choice == WORKING else None)
        return self.finish(step, choice)

    def finish(self, step: str, choice: int) -> Succeeded | Refused:
        """End the work, or tell how it ended."""
        entry = self.entries[step]
        entry.working = False
        if entry.effects and not entry.tombstone and not entry.refusal_stored:
            return Succeeded(Json('{"n":1}'))
        if choice in (1, 2) or entry.tombstone or entry.refusal_stored:
            entry.refusal_stored = entry.refusal_stored or choice == 1
            entry.attempts.clear()  # what comes after it is another work, and has a token of its own
            return Refused(NO, stored=entry.refusal_stored or entry.tombstone)
        entry.effects += 1
        return Succeeded(Json('{"n":1}'))

    def compensate(self, step: str, choice: int) -> Verdict:
        entry = self.entries.setdefault(step, Entry())
        if choice >= WORKING:
            return InProgress(7)
        if choice:
            return Refused(NO)
        entry.effects, entry.tombstone, entry.working = 0, True, False
        return Succeeded()


@dataclass(frozen=True)
class Call:
    """A request that is somewhere on the network."""

    step: str
    compensation: bool
    attempt: int
    lost: bool = False
    """Whether whoever waited for it is gone, and its attempt forgotten."""


class World:
    """Drives one saga, and checks each decision against the journal and its observer.

    `slow`: participants are mostly at work, and say later how it ended.
    """

    def __init__(self, graph: Graph, numbers: bytes, log: list[str], *, slow: bool = False) -> None:
        self.graph, self.tape, self.log, self.slow = graph, Tape(numbers), log, slow
        self.ledger = Ledger()
        self.observer = Observer(graph)
        self.endings = Endings(graph)
        self.journal: list[Event] = []
        self.ends: list[int] = []
        """Where appends to the journal ended."""
        self.late: list[Call] = []
        self.replies: list[Settle] = []
        self.words: list[Complete] = []
        self.cancelled = False
        self.now = START
        begin = replace(started(graph), start_time=START + 9 if self.tape.choose(16) == 15 else None)
        events, self.state = start(graph, begin)
        self.folded: State | None = None
        self._append("start", events)

    def run(self) -> None:
        """Drive the saga until it is final, or stuck at the end of the tape; then let everything late arrive."""
        for _ in range(TURNS_MAX):
            if self.state.final or (self.state.status is SagaStatus.STUCK and not self.tape):
                break
            self._turn()
        else:
            raise AssertionError(f"I39: not at rest after {TURNS_MAX} turns: {self.state!r}")
        while self.late:
            self._land_late()
        for step, entry in self.ledger.entries.items():
            if entry.working:
                self.ledger.finish(step, 0)
        self._check_end()

    def _turn(self) -> None:
        self.now += self.tape.choose(3)
        turns = (
            *(self._progress,) * 30,
            self._land_late,
            self._repeat_reply,
            self._wake_early,
            self._wake_late,
            self._crash,
            self._restore,
            self._cancel,
            self._pause_or_resume,
            lambda: self._operate(Retry("test", "op")),
            self._resolve,
            self._complete,
            self._complete,
            self._repeat_word,
            lambda: self._operate(Fail("test", "op")),
        )
        turns[self.tape.choose(len(turns))]()

    # What moves a saga by itself

    def _progress(self) -> None:
        calls = sorted(self.observer.open_calls())
        next_time = due(self.state).next_time
        if calls:
            self._answer(Call(*calls[self.tape.choose(len(calls))]))
        elif next_time is not None:
            self.now = max(self.now, next_time)
            self._decide(Wake())
        elif self.state.status is SagaStatus.STUCK and self.tape.choose(2):
            self._operate(Retry("test", "op"))
        elif self.state.status is SagaStatus.STUCK:
            self._resolve()
        elif self.state.paused and not self.tape:
            self._decide(Resume("test", "op"))
        elif self.words and self.tape.choose(4) == 3:
            self._repeat_word()
        elif not self.state.final:
            self._complete()

    def _complete(self) -> None:
        """Somebody who holds a token of a call that has landed brings its outcome."""
        working = sorted(
            step for step, entry in self.ledger.entries.items() if entry.attempts and (entry.working or entry.effects)
        )
        waiting = [step for step in working if self.observer.steps[step].waits] or working
        if waiting:
            step = waiting[self.tape.choose(len(waiting))]
            tokens = sorted(self.ledger.entries[step].attempts, reverse=True)
            known = [token for token in tokens if token <= self.observer.steps[step].attempts]
            tokens = known or tokens  # a token that was given after a backup is not known any more
            kind = (0, 2, 2, 0, 0, 1, 2, 3)[self.tape.choose(8)] if self.slow else max(0, self.tape.choose(8) - 4)
            verdict = self.ledger.finish(step, kind) if kind < 3 else Unknown(TIMEOUT)
            command = Complete(step, tokens[self.tape.choose(len(tokens))], verdict)
            before = self.state
            waited_for = before.step(step).action.takes_word
            if self._operate(command) and waited_for and not self._gave_up(step, before):
                self.words.append(command)
            assert waited_for or _without_marks(self.state) == _without_marks(before), f"{command} changed something"

    def _gave_up(self, step: str, before: State) -> bool:
        """Tell whether the last decision ended a step without a verdict: then it may be said what it was."""
        return any(isinstance(event, StepGivenUp) and event.step == step for event in self.journal[before.sequence :])

    def _repeat_word(self) -> None:
        """Somebody who has not got the answer says again what was taken; that is never said of anything else."""
        words = [word for word in self.words if self.observer.steps[word.step].waits] or self.words
        if words:
            command, before = words[self.tape.choose(len(words))], self.state
            self._operate(command)
            assert _without_marks(self.state) == _without_marks(before), f"{command} changed something again"

    def _answer(self, call: Call) -> None:
        kind = max(0, self.tape.choose(18) - 8)
        if self.slow and kind == 0 and not call.compensation and self.tape:
            kind = 8 + self.tape.choose(2)
        if kind < 3:  # 0 the smooth way, 1 refused and stored, 2 refused by this attempt
            self._settle(call, self._land(call, kind))
        elif kind == 3:  # done, and the reply is lost for now
            self.replies.append(Settle(call.step, call.compensation, call.attempt, self._land(call, 0)))
            self._settle(call, Unknown(TIMEOUT))
        elif kind == 4:  # the request is lost
            self._settle(call, Unknown(TIMEOUT))
        elif kind == 7:  # it waited for its turn until it was not to be sent any more
            self._settle(call, NotSent(TIMEOUT))
        elif kind >= 8:  # the participant is at work, and is to be asked again, or will say by itself
            self._settle(call, self._land(call, WORKING + kind - 8))
        else:  # the request is under way, and may land after anything else
            self.late.append(call)
            self._settle(call, Unknown(TIMEOUT, again=kind != 5))

    def _settle(self, call: Call, verdict: Verdict) -> None:
        settle = Settle(call.step, call.compensation, call.attempt, verdict)
        self.replies.append(settle)
        self._decide(settle, hold=self.tape.choose(32) == 31)

    def _land(self, call: Call, choice: int) -> Verdict:
        if call.compensation:
            return self.ledger.compensate(call.step, choice)
        verdict = self.ledger.execute(call.step, call.attempt, choice)
        self._check_input(call)
        return verdict

    def _check_input(self, call: Call) -> None:
        """What is held under a key is held for one input: a barrier turns any other away.

        So it is after a restore, too, unless an operator says another thing than before it.
        """
        owed, entry = OwedCall(self.graph.index[call.step], False, call.attempt), self.ledger.entries[call.step]
        if not is_open(self.state, owed) or not (entry.effects or entry.refusal_stored or entry.working):
            return
        if not (self.state.restored and any(isinstance(event, StepResolved) for event in self.journal)):
            entry.inputs.add(order_call(self.state, owed).input)
            assert len(entry.inputs) == 1, f"I12: the key of {call.step} came with {entry.inputs}"

    def _land_late(self) -> None:
        if self.late:
            call = self.late.pop(self.tape.choose(len(self.late)))
            choice = self.tape.choose(3)
            at_work = call.step in self.ledger.entries and self.ledger.entries[call.step].working
            verdict = self._land(call, 0 if at_work else choice)  # what is at work for another attempt goes on
            self.log.append(f"{call} lands late: {verdict}")
            if call.lost:
                return
            self.replies.append(Settle(call.step, call.compensation, call.attempt, verdict))

    def _repeat_reply(self) -> None:
        if self.replies:
            reply = self.replies[self.tape.choose(len(self.replies))]
            waited_for = (reply.step, reply.compensation, reply.attempt) in self.observer.open_calls()
            before = _without_marks(self.state)
            self._decide(reply)
            assert waited_for or _without_marks(self.state) == before, f"{reply} changed something"

    def _wake_early(self) -> None:
        self._decide(Wake())

    def _wake_late(self) -> None:
        self.now += 50 * self.tape.choose(20)
        self._decide(Wake())

    def _crash(self) -> None:
        """Drop all that is in memory; what was being sent may still arrive."""
        for call in sorted(self.observer.open_calls()):
            if self.tape.choose(2):
                self.late.append(Call(*call))
        self.now += 50 * self.tape.choose(10)
        self.state = fold(self.graph, self.journal)
        self._decide(Recover())
        assert not self.state.paused or not self.observer.open_calls(), "paused, and something was dispatched"

    def _restore(self) -> None:
        """Go back to a backup: the end of the journal is lost, and nothing that was done is.

        What an operator had said since then nobody can know: it has to be said again. Compensations that were under
        way have landed, or never will: whoever restores waits for them.
        """
        kept = self.ends[self.tape.choose(len(self.ends))]
        if any(isinstance(event, StepResolved) for event in self.journal[kept:]):
            return
        self.late += [Call(*call) for call in sorted(self.observer.open_calls())]
        for call in self.late:
            if call.compensation and self.tape.choose(2):
                self._land(call, 0)
        self.late = [replace(call, lost=True) for call in self.late if not call.compensation]
        self.replies, self.words, self.cancelled = [], [], False
        self.observer = Observer(self.graph)
        self.endings = Endings(self.graph)
        for event in self.journal[:kept]:
            self.observer.decision([event])
            self.endings.see(event)
        self.journal, self.ends = self.journal[:kept], [end for end in self.ends if end <= kept]
        self.state = self.folded = fold(self.graph, self.journal)
        self.log.append(f"{self.now - START}: restored as of event {kept}")
        if not self.state.final:
            self._decide(Recover(restored=True))

    # What people do

    def _cancel(self) -> None:
        before = self.state
        if self._operate(Cancel("test", "op")):
            self.cancelled = True
            assert self.state.cause is not None, "I21: a cancel was accepted and the saga goes on"
            assert before.going_back or isinstance(self.state.cause, Cancelled), "I21: the cause is not the cancel"

    def _pause_or_resume(self) -> None:
        self._operate(Resume("test", "op") if self.state.paused else Pause("test", "op"))

    def _resolve(self) -> None:
        """An operator who tells the truth: the ledger is put right by hand first."""
        wanting = [step for step, seen in self.observer.steps.items() if seen.wants_help] or list(self.observer.steps)
        step = wanting[self.tape.choose(len(wanting))]
        resolution = list(Resolution)[self.tape.choose(3)]
        if self._operate(Resolve(step, resolution, None, "test", "op")):
            entry = self.ledger.entries.setdefault(step, Entry())
            if resolution is Resolution.SUCCEEDED:
                entry.effects = 1
            if resolution is Resolution.COMPENSATED:
                entry.effects, entry.tombstone = 0, True
                for end in self.graph.ends if self.state.restored else ():  # it was looked at, too
                    of_end = self.ledger.entries.setdefault(self.graph.nodes[end].step.id, Entry())
                    of_end.effects, of_end.tombstone = 0, True

    def _operate(self, command: Command) -> bool:
        before = self.state
        try:
            self._decide(command)
        except Rejected as rejected:
            self.log.append(f"{command} is rejected: {rejected.reason}")
            assert self.state == before, "a rejected command changed something"
            return False
        return True

    # What holds after every decision

    def _decide(self, command: Command, *, hold: bool = False) -> None:
        events, self.state = decide(self.state, command, self.now, hold=hold)
        self._append(f"{command}{' on the way out' if hold else ''}", events)
        if hold:
            self._crash()
        elif isinstance(command, Wake | Recover | Resume):
            self._check_deadline_met()

    def _append(self, what: str, events: list[Event]) -> None:
        self.log.append(f"{self.now - START}: {what}")
        self.log.extend(f"    {event}" for event in events)
        self.observer.decision(events)
        for event in events:
            self.endings.see(event)
            self.journal.append(event)
            self.folded = evolve(self.folded, event) if self.folded else fold(self.graph, [event])
            if isinstance(event, SagaRestored):
                steps = zip(self.graph.nodes, self.folded.steps, strict=True)
                self.endings.forget([node.step.id for node, step in steps if step.status is StepStatus.PENDING])
        assert self.folded == self.state, "I30: the state is not the fold of the journal"
        assert self.state.sequence == len(self.journal), "I30: a hole in the sequence"
        self.ends.append(len(self.journal))
        self._check_due()

    def _check_due(self) -> None:
        owed, observer = due(self.state), self.observer
        ids = [node.step.id for node in self.graph.nodes]
        assert {(ids[c.node], c.compensation, c.attempt) for c in owed.calls} == observer.open_calls(), (
            "I10: owed calls"
        )
        assert owed.next_time == observer.next_time(), f"I23: due at {owed.next_time}, not {observer.next_time()}"

    def _check_deadline_met(self) -> None:
        deadline = self.state.started.deadline
        missed = deadline is not None and self.now >= deadline and self.state.status in FORWARD
        assert not missed or self.observer.committed, "I22: the deadline passed and nothing came of it"
        start_time = self.state.started.start_time
        early = start_time is not None and self.now < start_time
        resting = self.observer.quiet and not self.state.paused and not self.state.final and not early
        assert not resting or self.state.status is SagaStatus.STUCK, "I39: nothing moves, and the saga is not STUCK"

    def _check_end(self) -> None:
        assert fold(self.graph, self.journal) == self.state, "I30: the state is not the fold of the journal"
        effects = {step: entry.effects for step, entry in self.ledger.entries.items()}
        assert all(count in (0, 1) for count in effects.values()), f"I13: {effects}"
        match self.state.ending:
            case SagaCompleted():
                assert not self.cancelled, "I21: a cancel was accepted, and the saga completed"
                succeeded = [step for step, seen in self.observer.steps.items() if not seen.skipped]
                assert all(effects.get(step) == 1 for step in succeeded), f"I1: COMPLETED, and the ledger has {effects}"
                idle = [step for step, seen in self.observer.steps.items() if seen.without_effect]
                # After a restore a condition may hold no more, if it reads an error that no participant remembers.
                assert self.observer.restored or not any(map(effects.get, idle)), (
                    f"I1: {idle} were not to be done: {effects}"
                )
            case SagaCompensated():
                owing = [node.step.id for node in self.graph.nodes if not self._nothing_to_undo(node.step.id)]
                left = [step for step in owing if effects.get(step)]
                assert not left, f"I1: COMPENSATED, and there is left of {left}: {effects}"
            case _:
                pass

    def _nothing_to_undo(self, step: str) -> bool:
        compensation = self.graph.node(step).step.compensation
        return compensation is not None and compensation.not_needed


def _without_marks(state: State) -> State:
    """A saga but for what a record of a late reply changes."""
    return replace(state, sequence=0, update_time=0, late=frozenset())
