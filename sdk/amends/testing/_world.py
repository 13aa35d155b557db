"""What sagas of one in-process orchestrator share: a clock that is moved by hand, and the participants' handlers."""

from __future__ import annotations

from amends.testing._handlers import Handlers
from amends.testing._machine import Machine
from amends.testing._notes import note_call, note_verdict
from amends_server.engine.commands import Verdict, Wake
from amends_server.engine.due import OwedCall
from amends_server.engine.policy import SECOND_US, Time

START_TIME: Time = 1_800_000_000 * SECOND_US
"""When the clock begins: any time would do, as long as each run has the same."""

TURNS_MAX = 2_000
"""Calls and wake-ups without an end in sight, after which a test is told instead of running for ever."""


class World:
    """Sagas, and what makes them go on: answers, and time."""

    def __init__(self, handlers: Handlers) -> None:
        self.now = START_TIME
        self.machines: list[Machine] = []
        self._handlers = handlers
        self._held: list[tuple[Machine, OwedCall]] = []

    def handles(self, machine: Machine, call: OwedCall) -> bool:
        """Tell whether a call goes to a handler in this process, and no test has taken it into its hand."""
        return self._handlers.have(machine.order(call).node.step.participant) and not self.holds(machine, call)

    def holds(self, machine: Machine, call: OwedCall) -> bool:
        """Tell whether a test has taken a call into its hand."""
        return any(held is machine and each == call for held, each in self._held)

    def hold(self, machine: Machine, call: OwedCall) -> None:
        """Have a call wait for what a test says of it."""
        machine.notes.append(note_call(machine, call))
        self._held.append((machine, call))

    def run_handler(self, machine: Machine, call: OwedCall) -> Verdict:
        """Have the effect of a call, and return what the handler told of it.

        :raises LookupError: if there is no handler of it in this process.
        """
        order = machine.order(call)
        participant = order.node.step.participant
        if not self._handlers.have(participant):
            raise LookupError(f"There are no handlers of {participant!r} here: give them by participants=[…].")
        return self._handlers.call(order, machine.origin, self.now)

    def settle(self, machine: Machine, call: OwedCall, verdict: Verdict) -> None:
        """Record the outcome of a call."""
        if not self.holds(machine, call):
            machine.notes.append(note_call(machine, call))
        machine.notes.append(note_verdict(machine, call, verdict))
        self._held = [(held, each) for held, each in self._held if held is not machine or each != call]
        machine.apply(machine.settled(call, verdict), self.now)

    def proceed(self) -> bool:
        """Do the next thing that happens without a test's doing; False if there is none.

        Where there are handlers, time passes by itself while nothing is in flight; elsewhere it is the test's to move.
        """
        if self._answer():
            return True
        next_time = self._next_time()
        if not self._handlers.any or next_time is None or any(machine.calls for machine in self.machines):
            return False
        self._wake(next_time)
        return True

    def advance(self, seconds: float) -> None:
        """Move the clock, and do all that is due on the way, in its order."""
        until = self.now + round(seconds * SECOND_US)
        for _ in range(TURNS_MAX):
            if self._answer():
                continue
            next_time = self._next_time()
            if next_time is None or next_time > until:
                self.now = until
                return
            self._wake(next_time)
        raise AssertionError(f"In {seconds:g} s more than {TURNS_MAX} things are due: move the clock by less.")

    def advance_to_next(self) -> bool:
        """Move the clock to where something is due; False if nothing is."""
        next_time = self._next_time()
        if next_time is not None:
            self._wake(next_time)
        return next_time is not None

    def _answer(self) -> bool:
        for machine in self.machines:
            for call in machine.calls:
                if self.handles(machine, call):
                    self.settle(machine, call, self.run_handler(machine, call))
                    return True
        return False

    def _next_time(self) -> Time | None:
        return min((time for machine in self.machines if (time := machine.next_time) is not None), default=None)

    def _wake(self, time: Time) -> None:
        self.now = max(self.now, time)
        for machine in self.machines:
            if machine.next_time is not None and machine.next_time <= self.now:
                machine.apply(Wake(), self.now)
