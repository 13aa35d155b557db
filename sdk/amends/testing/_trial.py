"""One run of a saga in which one thing goes wrong, from its start until everything late has arrived."""

from __future__ import annotations

from typing import assert_never

from amends.testing._handlers import Handlers
from amends.testing._machine import Machine, start_of
from amends.testing._world import START_TIME, TURNS_MAX
from amends.testing.faults import TURNING, Case, Fault
from amends.testing.ledger import Books
from amends_server.engine.commands import Command, Refused, Unknown, Verdict, Wake
from amends_server.engine.definition import Kind
from amends_server.engine.due import CallOrder, OwedCall, due
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error
from amends_server.transport.requests import Origin

REFUSED = Error("REFUSED", "Refused on purpose.")
NO_ANSWER = Error("UNAVAILABLE", "No answer, on purpose.")

STRIKES_MAX = 100
"""Attempts that go wrong of a call that goes wrong each time: an endless retry must get through in the end."""


class Trial:
    """Drives one saga. `struck` tells whether what was to go wrong has gone wrong."""

    def __init__(
        self, graph: Graph, value: object, *, saga_id: str, case: Case | None, books: Books, handlers: Handlers
    ) -> None:
        self.struck = False
        self.called: list[str] = []
        self._now = START_TIME
        self._case = case
        self._books = books
        self._handlers = handlers
        self._late: list[tuple[OwedCall, CallOrder, Origin]] = []
        self.machine = Machine(graph, start_of(value, saga_id), self._now)

    def run(self) -> None:
        """Run to the end, or until the saga is stuck; then let late requests arrive."""
        for _ in range(TURNS_MAX):
            if self.machine.calls:
                self._deliver(self.machine.calls[0])
            elif self.machine.next_time is not None:
                self._now = max(self._now, self.machine.next_time)
                self._decide(Wake())
            else:
                break
        else:
            raise AssertionError(f"The saga is not at rest after {TURNS_MAX} calls and wake-ups: {self._case}")
        for call, order, origin in self._late:
            self.machine.apply(self.machine.settled(call, self._land(order, origin)), self._now)

    def _deliver(self, call: OwedCall) -> None:
        step, case = self.machine.step_of(call), self._case
        if not call.compensation and step not in self.called:
            self.called.append(step)
        if case is not None and self._is_struck(call, case):
            self.struck = True
            self._strike(call, case.fault)
        elif case is not None and not call.compensation and step == case.turned_by and call.attempt <= STRIKES_MAX:
            self._turn(call, case)
        else:
            self._settle(call, self._call(call))

    def _is_struck(self, call: OwedCall, case: Case) -> bool:
        if (self.machine.step_of(call), call.compensation) != (case.step, case.compensation):
            return False
        if case.fault is Fault.CRASH_BEFORE_INTENT:  # that happens before the call is there
            return False
        kind = self.machine.order(call).node.step.kind
        each_time = case.fault in TURNING and kind is Kind.COMPENSATABLE
        return call.attempt <= STRIKES_MAX if each_time else not self.struck

    def _strike(self, call: OwedCall, fault: Fault) -> None:
        match fault:
            case Fault.REFUSED:
                self._settle(call, Refused(REFUSED))
            case Fault.LOST | Fault.LOST_EACH_TIME:
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.REPLY_LOST | Fault.REPLY_LOST_EACH_TIME:
                self._call(call)
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.CRASH_AFTER_INTENT:
                self._crash()
            case Fault.CRASH_BEFORE_OUTCOME:
                self._call(call)
                self._crash()
            case Fault.CRASH_AFTER_OUTCOME:
                self._settle(call, self._call(call))
                self._crash()
            case Fault.DUPLICATE:
                verdict = self._call(call)
                self._call(call)
                self._settle(call, verdict)
            case Fault.LATE:
                self._delay(call)
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.LATE_DUPLICATE:
                self._call(call)
                self._delay(call)
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.CRASH_BEFORE_INTENT:
                raise AssertionError("a call whose intent is durable")
            case _:
                assert_never(fault)

    def _turn(self, call: OwedCall, case: Case) -> None:
        """Have the saga turn back for this step; by a lost reply if it is the one whose compensation matters."""
        if case.turned_by != case.step:
            self._settle(call, Refused(REFUSED, stored=True))  # of no attempt is there an effect, so let it be known
        else:
            self._call(call)
            self._settle(call, Unknown(NO_ANSWER))

    def _delay(self, call: OwedCall) -> None:
        if call.attempt == 1:
            self._late.append((call, self.machine.order(call), self.machine.origin))

    def _settle(self, call: OwedCall, verdict: Verdict) -> None:
        self._decide(self.machine.settled(call, verdict))

    def _decide(self, command: Command) -> None:
        decision = self.machine.propose(command, self._now)
        if self._loses_intent(due(decision.state).calls):
            self.struck = True
            self._crash()  # and the decision with it
        else:
            self.machine.commit(decision)

    def _loses_intent(self, intended: tuple[OwedCall, ...]) -> bool:
        case = self._case
        if case is None or self.struck or case.fault is not Fault.CRASH_BEFORE_INTENT:
            return False
        return any(
            (self.machine.step_of(call), call.compensation) == (case.step, case.compensation) for call in intended
        )

    def _crash(self) -> None:
        self.machine.restart(self._now)

    def _call(self, call: OwedCall) -> Verdict:
        return self._land(self.machine.order(call), self.machine.origin)

    def _land(self, order: CallOrder, origin: Origin) -> Verdict:
        if self._handlers.have(order.node.step.participant):
            return self._handlers.call(order, origin, self._now)
        return self._books.call(order)
