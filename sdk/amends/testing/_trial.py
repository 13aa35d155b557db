"""One run of a saga in which one thing goes wrong, from its start until everything late has arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from amends.testing._handlers import Handlers
from amends.testing._machine import PRINCIPAL, Machine, start_of
from amends.testing._world import START_TIME, TURNS_MAX
from amends.testing.faults import EACH_TIME, LATE, REFUSED, Case, Fault, Siblings
from amends.testing.ledger import Books
from amends_server.engine.commands import Command, Refused, Retry, Unknown, Verdict, Wake
from amends_server.engine.definition import Kind
from amends_server.engine.due import CallOrder, OwedCall, due
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error
from amends_server.engine.state import SagaStatus
from amends_server.transport.requests import Origin

NO_ANSWER = Error("UNAVAILABLE", "No answer, on purpose.")

STRIKES_MAX = 100
"""Attempts that go wrong of a call that goes wrong each time: an endless retry must get through in the end."""


class Trial:
    """Drives one saga. `struck` tells whether what was to go wrong has gone wrong.

    `helped`: whether the saga was STUCK because of that, as it had to be, so that an operator has retried it.
    """

    def __init__(
        self, graph: Graph, value: object, *, saga_id: str, case: Case | None, books: Books, handlers: Handlers
    ) -> None:
        self.helped = False
        self.called: list[str] = []
        self._strikes = 0
        self._now = START_TIME
        self._case = case
        self._books = books
        self._handlers = handlers
        self._late: list[tuple[OwedCall, CallOrder, Origin]] = []
        self.machine = Machine(graph, start_of(value, saga_id), self._now)

    @property
    def struck(self) -> bool:
        return self._strikes > 0

    def run(self) -> None:
        """Run to the end, or until the saga is stuck; then let late requests arrive."""
        for _ in range(TURNS_MAX):
            if self.machine.calls:
                self._deliver(self._next_call(self.machine.calls))
            elif self.machine.next_time is not None:
                self._now = max(self._now, self.machine.next_time)
                self._decide(Wake())
            elif self._needs_help():
                self.helped = True
                self._decide(Retry("", PRINCIPAL))
            else:
                break
        else:
            raise AssertionError(f"The saga is not at rest after {TURNS_MAX} calls and wake-ups: {self._case}")
        for call, order, origin in self._late:
            self.machine.apply(self.machine.settled(call, self._land(order, origin)), self._now)

    def _next_call(self, calls: Sequence[OwedCall]) -> OwedCall:
        """The call with which something goes wrong while others are in flight goes before these."""
        case = self._case
        if case is not None and case.siblings is not Siblings.QUIET and not self.struck and len(calls) > 1:
            return next((call for call in calls if self._is_of(call, case)), calls[0])
        return calls[0]

    def _needs_help(self) -> bool:
        """Tell whether the saga is STUCK, as it has to be when this goes wrong: with what it cannot do without."""
        case = self._case
        if case is None or self.helped or self.machine.state.status is not SagaStatus.STUCK:
            return False
        kind = self.machine.state.graph.node(case.step).step.kind
        cannot_turn = case.compensation or kind is not Kind.COMPENSATABLE
        return cannot_turn and (case.fault is Fault.REFUSED or case.fault in EACH_TIME)

    def _deliver(self, call: OwedCall) -> None:
        step, case = self.machine.step_of(call), self._case
        if not call.compensation and step not in self.called:
            self.called.append(step)
        if case is not None and self._is_struck(call, case):
            self._strike_beside(call, case)
        elif case is not None and self._crashes_before(call, case):
            self._call(call)
            self._crash()
        elif case is not None and not call.compensation and step == case.turned_by and call.attempt <= STRIKES_MAX:
            self._turn(call, case)
        else:
            self._settle(call, self._call(call))

    def _is_of(self, call: OwedCall, case: Case) -> bool:
        return (self.machine.step_of(call), call.compensation) == (case.step, case.compensation)

    def _is_struck(self, call: OwedCall, case: Case) -> bool:
        if not self._is_of(call, case) or self.helped or case.fault is Fault.CRASH_BEFORE_INTENT:
            return False  # a crash before the intent happens before the call is there
        if case.siblings is not Siblings.QUIET and not self.struck and len(self.machine.calls) == 1:
            return False
        return self._strikes < self._strikes_max(call, case)

    def _strikes_max(self, call: OwedCall, case: Case) -> int:
        turns = not call.compensation and self.machine.order(call).node.step.kind is Kind.COMPENSATABLE
        if case.fault in EACH_TIME or (case.fault in LATE and turns):
            return STRIKES_MAX
        return 2 if case.fault is Fault.CRASH_TWICE else 1

    def _crashes_before(self, call: OwedCall, case: Case) -> bool:
        """Tell whether the orchestrator has to die in this action, so that it does so again in its compensation."""
        first = not call.compensation and call.attempt == 1
        return case.fault is Fault.CRASH_BOTH_WAYS and first and self.machine.step_of(call) == case.step

    def _strike_beside(self, call: OwedCall, case: Case) -> None:
        """Strike, and have the calls that are in flight at the same time do what the case says of them."""
        others = [other for other in self.machine.calls if other != call] if not self.struck else []
        self._strikes += 1
        if case.siblings is Siblings.QUIET or not others:
            return self._strike(call, case.fault, case.code)
        orders = [(other, self.machine.order(other), self.machine.origin) for other in others]
        replying = case.siblings is Siblings.REPLYING
        verdicts = [(other, self._call(other)) for other in others] if replying else []
        epoch = self.machine.origin.epoch
        self._strike(call, case.fault, case.code)
        if self.machine.origin.epoch == epoch:  # whoever waited for these replies is there
            for other, verdict in verdicts:
                self._settle(other, verdict)
        elif not replying:
            self._late += orders
        return None

    def _strike(self, call: OwedCall, fault: Fault, code: str) -> None:
        match fault:
            case Fault.REFUSED:
                self._settle(call, _refused(code))
            case Fault.LOST | Fault.LOST_EACH_TIME:
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.REPLY_LOST | Fault.REPLY_LOST_EACH_TIME:
                self._call(call)
                self._settle(call, Unknown(NO_ANSWER))
            case Fault.CRASH_AFTER_INTENT:
                self._crash()
            case Fault.CRASH_BEFORE_OUTCOME | Fault.CRASH_TWICE | Fault.CRASH_BOTH_WAYS:
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
            self._settle(call, _refused(REFUSED, stored=True))  # of no attempt is there an effect, so let it be known
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
            self._strikes += 1
            self._crash()  # and the decision with it
        else:
            self.machine.commit(decision)

    def _loses_intent(self, intended: tuple[OwedCall, ...]) -> bool:
        case = self._case
        if case is None or self.struck or case.fault is not Fault.CRASH_BEFORE_INTENT:
            return False
        return any(self._is_of(call, case) for call in intended)

    def _crash(self) -> None:
        self.machine.restart(self._now)

    def _call(self, call: OwedCall) -> Verdict:
        return self._land(self.machine.order(call), self.machine.origin)

    def _land(self, order: CallOrder, origin: Origin) -> Verdict:
        if self._handlers.have(order.node.step.participant):
            return self._handlers.call(order, origin, self._now)
        return self._books.call(order)


def _refused(code: str, *, stored: bool = False) -> Refused:
    return Refused(Error(code, "Refused on purpose."), stored)
