"""Scenarios: which calls a saga is expected to make, what is answered, and how it ends, line by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Generic, NoReturn, TypeVar, overload

from amends.action import Action
from amends.client.events import Event
from amends.completions import Completion
from amends.definition.steps import Step
from amends.participant.call import Call
from amends.testing._calls import ExpectedCall, ExpectedCompensation
from amends.testing._completion import completion_of
from amends.testing._machine import DEFINITION_VERSION, PRINCIPAL, Machine, payload_of
from amends.testing._refusals import as_clients_see_them
from amends.testing._targets import Target, name_of, steps_of
from amends.testing._text import difference, journal_of, same, story_text
from amends.testing._world import TURNS_MAX, World
from amends.views import Resolution, SagaView
from amends_server.convert.saga import saga_output, saga_to_wire
from amends_server.engine import events
from amends_server.engine.commands import (
    Cancel,
    Command,
    Fail,
    Pause,
    Refused,
    Resolve,
    Resume,
    Retry,
    Succeeded,
    Unknown,
)
from amends_server.engine.due import OwedCall
from amends_server.engine.payload import Error
from amends_server.engine.state import SagaStatus

In = TypeVar("In")
Out = TypeVar("Out")
Result = TypeVar("Result")


class Absent(Enum):
    """Told apart from None, which is a value like any other."""

    ABSENT = "ABSENT"


ABSENT: Final = Absent.ABSENT


class Scenario(Generic[Out]):
    """A saga that was started, and what is expected of it next. Made by `given` and by `Orchestrator.start`.

    Each expectation is checked at once, and an AssertionError shows what was seen instead and the journal so far.
    """

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine

    @property
    def saga(self) -> SagaView:
        """The saga as it stands, as a client sees it."""
        return SagaView.of(saga_to_wire(self._machine.state, DEFINITION_VERSION))

    @property
    def journal(self) -> tuple[Event, ...]:
        """Its events so far."""
        return journal_of(self._machine)

    # Calls

    @overload
    def expect(
        self, target: Action[In, Result], request: In | Absent = ABSENT
    ) -> ExpectedCall[Result, Scenario[Out]]: ...
    @overload
    def expect(self, target: Step[Result], request: object = ABSENT) -> ExpectedCall[Result, Scenario[Out]]: ...
    @overload
    def expect(self, target: str, request: object = ABSENT) -> ExpectedCall[Any, Scenario[Out]]: ...
    def expect(self, target: Target, request: object = ABSENT) -> ExpectedCall[Any, Scenario[Out]]:
        """Expect an action to be called now, with this request if one is given; of several at a time in any order.

        Say it by the step, or its id, where several steps have that action.
        """
        return ExpectedCall(self._world, self._machine, self._reach(target, False, request), lambda: self)

    def expect_compensation(self, target: Target) -> ExpectedCompensation[Scenario[Out]]:
        """Expect a compensation to be called now, to say how it ends; `expect_compensated` has all succeed."""
        return ExpectedCompensation(self._world, self._machine, self._reach(target, True, ABSENT), lambda: self)

    def expect_no_call(self) -> Scenario[Out]:
        """Expect that nothing is called now but what the test has in its hand already, as while a saga is paused."""
        calls = [call for call in self._machine.calls if not self._held(call)]
        if calls:
            self._fail(f"Expected that nothing is called, and {self._machine.step_of(calls[0])} is.")
        return self

    # Long work

    @overload
    def complete_step(self, step: Action[In, Result] | Step[Result], output: Result) -> Scenario[Out]: ...
    @overload
    def complete_step(self, step: Completion | Call | str, output: object = None) -> Scenario[Out]: ...
    def complete_step(self, step: Target | Completion | Call, output: object = None) -> Scenario[Out]:
        """Finish a step that waits, as `Client.complete`: it succeeded, with this output.

        :raises FailedPrecondition: if nobody waits for the outcome any more.
        :raises NotFound: if there is no such step.
        :raises PermissionDenied: if a completion is not that of a step of this saga.
        """
        step_id, token = self._completion(step)
        return self._command(completion_of(self._machine, step_id, token, Succeeded(payload_of(output))))

    def refuse_step(
        self, step: Target | Completion | Call, code: str, message: str = "", *, data: object = None
    ) -> Scenario[Out]:
        """Finish a step that waits, as `Client.refuse`: a business error. Raises what `complete_step` does."""
        step_id, token = self._completion(step)
        error = Error(code, message, self._participant_of(step_id), payload_of(data))
        return self._command(completion_of(self._machine, step_id, token, Refused(error)))

    def break_off_step(
        self, step: Target | Completion | Call, code: str, message: str = "", *, data: object = None
    ) -> Scenario[Out]:
        """End the work of a step that waits, as `Client.break_off`: nobody knows whether it had its effect.

        The action is called again, by the step's retry policy. Raises what `complete_step` does.
        """
        step_id, token = self._completion(step)
        error = Error(code, message, self._participant_of(step_id), payload_of(data))
        return self._command(completion_of(self._machine, step_id, token, Unknown(error)))

    # Time, operators, crashes

    def after(self, seconds: float) -> Scenario[Out]:
        """Move the clock, and do all that is due until then: retries, deadlines, calls to handlers."""
        self._note(f"{seconds:g} s pass")
        self._world.advance(seconds)
        return self

    def when_due(self) -> Scenario[Out]:
        """Move the clock to where the next retry or deadline is due."""
        if not self._world.advance_to_next():
            self._fail("Nothing becomes due: only answers, or an operator, lead on.")
        self._note("the clock is moved to what is due next")
        return self

    def restarts(self) -> Scenario[Out]:
        """Kill the orchestrator and start it again: it has its journal, and calls in flight are lost."""
        self._note("the orchestrator is killed, and started again")
        self._machine.restart(self._world.now)
        return self

    def cancel(self, reason: str = "") -> Scenario[Out]:
        """Turn the saga back, as `SagaHandle.cancel`. :raises FailedPrecondition: if it cannot turn any more."""
        return self._command(Cancel(reason, PRINCIPAL))

    def pause(self, reason: str = "") -> Scenario[Out]:
        """Have nothing new be called, as `Client.pause`. :raises FailedPrecondition: if the saga has ended."""
        return self._command(Pause(reason, PRINCIPAL))

    def resume(self, reason: str = "") -> Scenario[Out]:
        """Have a paused saga go on, as `Client.resume`. :raises FailedPrecondition: if it has ended."""
        return self._command(Resume(reason, PRINCIPAL))

    def retry(self, reason: str = "") -> Scenario[Out]:
        """Go on from STUCK, or make a waiting attempt now. :raises FailedPrecondition: if there is nothing to retry."""
        return self._command(Retry(reason, PRINCIPAL))

    def resolve(
        self, step: Step[Any] | str, resolution: Resolution, *, output: object = None, reason: str = ""
    ) -> Scenario[Out]:
        """Settle a step as an operator. :raises FailedPrecondition: if it cannot be settled like that now."""
        step_id = step if isinstance(step, str) else step.id
        settled_as = events.Resolution[resolution.name]
        return self._command(Resolve(step_id, settled_as, payload_of(output), reason, PRINCIPAL))

    def fail(self, reason: str = "") -> Scenario[Out]:
        """Give a STUCK saga up, as `Client.fail`. :raises FailedPrecondition: if it is not stuck."""
        return self._command(Fail(reason, PRINCIPAL))

    # Ends

    def completes(self, output: Out | Absent = ABSENT) -> Scenario[Out]:
        """Expect the saga to be COMPLETED, with this output if one is given."""
        self._rest()
        self._check_status(SagaStatus.COMPLETED)
        got = saga_output(self._machine.state)
        if output is not ABSENT and not same(payload_of(output), got):
            self._fail(f"It completed with another output.\n{difference(payload_of(output), got)}")
        return self

    def compensated(self) -> Scenario[Out]:
        """Expect the saga to be COMPENSATED."""
        self._rest()
        self._check_status(SagaStatus.COMPENSATED)
        return self

    def expect_compensated(self, targets: Sequence[Target]) -> Scenario[Out]:
        """Expect exactly these to be compensated, in this order, and the saga to be COMPENSATED then.

        Compensations that were not spoken of before succeed: by their handlers, where these are given.
        """
        wanted = [self._only_step(target) for target in targets]
        for _ in range(TURNS_MAX):
            call = self._next_compensation(wanted)
            if call is not None:
                handled = self._world.handles(self._machine, call)
                verdict = self._world.run_handler(self._machine, call) if handled else Succeeded()
                self._world.settle(self._machine, call, verdict)
            elif self._machine.state.final or not self._world.proceed():
                break
        undone = self._undone()
        if undone != wanted:
            diff = difference(payload_of(wanted), payload_of(undone))
            self._fail(f"Other steps were compensated, or in another order.\n{diff}")
        self._check_status(SagaStatus.COMPENSATED)
        return self

    def stuck(self, *targets: Target) -> Scenario[Out]:
        """Expect the saga to be STUCK, because of these steps if any are given."""
        self._rest()
        self._check_status(SagaStatus.STUCK)
        stuck = self._machine.state.stuck
        blocking = sorted(stuck.steps) if stuck else []
        wanted = sorted(self._only_step(target) for target in targets)
        if targets and wanted != blocking:
            self._fail(f"It is stuck in {', '.join(blocking)}, not in {', '.join(wanted)}.")
        return self

    def failed(self) -> Scenario[Out]:
        """Expect the saga to be FAILED: an operator has given it up."""
        self._check_status(SagaStatus.FAILED)
        return self

    # How it is done

    def _reach(self, target: Target, compensation: bool, request: object) -> OwedCall:
        fits = self._matcher(target)
        for _ in range(TURNS_MAX):
            found = [c for c in self._machine.calls if c.compensation is compensation and fits(c) and not self._held(c)]
            if found:
                return self._with_request(found, target, request)
            if not self._world.proceed():
                break
        what = f"the compensation of {name_of(target)}" if compensation else name_of(target)
        self._fail(f"Expected a call of {what}, and there is none now.")

    def _with_request(self, found: list[OwedCall], target: Target, request: object) -> OwedCall:
        if request is ABSENT:
            return found[0]
        wanted = payload_of(request)
        for call in found:
            if same(wanted, self._machine.order(call).input):
                return call
        diff = difference(wanted, self._machine.order(found[0]).input)
        self._fail(f"{name_of(target)} is called with another request.\n{diff}")

    def _matcher(self, target: Target) -> Callable[[OwedCall], bool]:
        steps = steps_of(self._machine.state.graph, target)
        if not steps:
            self._fail(f"The saga has no step for {name_of(target)}.")
        return lambda call: self._machine.step_of(call) in steps

    def _only_step(self, target: Target) -> str:
        steps = steps_of(self._machine.state.graph, target)
        if len(steps) != 1:
            meant = f"{', '.join(steps)} are; name one" if steps else "none is"
            self._fail(f"{name_of(target)} must be one step of the saga, and {meant}.")
        return steps[0]

    def _next_compensation(self, wanted: list[str]) -> OwedCall | None:
        """Of those that could be next, the one that is wanted next."""
        calls = [call for call in self._machine.calls if call.compensation and not self._held(call)]
        following = wanted[len(self._undone()) :][:1]
        return next((call for call in calls if self._machine.step_of(call) in following), calls[0] if calls else None)

    def _undone(self) -> list[str]:
        return [event.step for event in self._machine.journal if isinstance(event, events.CompensationSucceeded)]

    def _held(self, call: OwedCall) -> bool:
        return self._world.holds(self._machine, call)

    def _rest(self) -> None:
        """Let everything happen that happens by itself."""
        for _ in range(TURNS_MAX):
            if self._machine.state.final or not self._world.proceed():
                return
        self._fail(f"It is not at rest after {TURNS_MAX} calls and wake-ups.")

    def _completion(self, step: Target | Completion | Call) -> tuple[str, str | None]:
        """The id of a step, and the token that whoever finishes it has; None for the test, who needs none."""
        match step:
            case Call():
                return self._completion(step.completion)
            case Completion():
                return step.step, step.token
            case str():
                return step, None
            case _:
                return self._only_step(step), None

    def _participant_of(self, step_id: str) -> str:
        return next((n.step.participant for n in self._machine.state.graph.nodes if n.step.id == step_id), "")

    def _command(self, command: Command) -> Scenario[Out]:
        self._note(f"command: {type(command).__name__.lower()}")
        with as_clients_see_them():
            self._machine.apply(command, self._world.now)
        return self

    def _note(self, text: str) -> None:
        self._machine.notes.append(text)

    def _check_status(self, wanted: SagaStatus) -> None:
        if self._machine.state.status is not wanted:
            self._fail(f"Expected the saga to be {wanted.name}.")

    def _fail(self, message: str) -> NoReturn:
        __tracebackhide__ = True
        raise AssertionError(f"{message}\n{story_text(self._machine, self._world.now)}")
