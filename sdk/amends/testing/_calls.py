"""Expected calls: what a test says of a call that it found to be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from amends.errors import InProgress
from amends.policies import Duration, duration_message
from amends.testing._machine import Machine, payload_of
from amends.testing._world import World
from amends.v1 import saga_pb2
from amends_server.config import PAYLOAD_BYTES_MAX
from amends_server.engine.commands import Refused, Succeeded, Unknown, Verdict
from amends_server.engine.due import OwedCall
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US
from amends_server.transport.verdicts import verdict_of_reply

Result = TypeVar("Result")
Next = TypeVar("Next")


class _Expected(Generic[Next]):
    """An open call in a test's hand. Each method says how it ends, and gives the scenario to go on with."""

    def __init__(self, world: World, machine: Machine, call: OwedCall, following: Callable[[], Next]) -> None:
        self._world = world
        self._machine = machine
        self._call = call
        self._following = following
        self._order = machine.order(call)
        world.hold(machine, call)

    def refuses(self, code: str, message: str = "", *, data: object = None, stored: bool = False) -> Next:
        """A business error, as `raise Refused(…)` in a handler."""
        return self._settle(Refused(self._error(code, message, data), stored))

    def fails(self, error: BaseException | str = "", *, after_effect: bool = False) -> Next:
        """A system error: the outcome is unknown. With `after_effect` the participant's handler runs before."""
        self._have_effect(after_effect)
        message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self._settle(Unknown(self._error("SYSTEM_ERROR", message)))

    def times_out(self, *, after_effect: bool = False) -> Next:
        """No answer comes: the clock moves on by the timeout. With `after_effect` the participant's handler runs."""
        self._have_effect(after_effect)
        left = self._order.deadline - self._world.now if self._order.deadline else self._order.timeout_us
        self._world.advance(max(0, min(self._order.timeout_us, left)) / SECOND_US)
        return self._settle(Unknown(self._error("TIMEOUT", "No answer came in time.")))

    def replies_later(self, *, poll: Duration | None = None) -> Next:
        """In progress, as `call.later(poll=…)` in a handler: the step waits to be asked again, or to be completed.

        A compensation that answers so is asked again by its retry policy.

        :raises ValueError: if `poll` is not longer than nothing.
        """
        poll_s = InProgress(poll=poll).poll_s
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_IN_PROGRESS, poll_interval=duration_message(poll_s, "poll"))
        return self._settle(verdict_of_reply(self._order.node.step.participant, reply, PAYLOAD_BYTES_MAX))

    def runs(self) -> Next:
        """The participant's handler runs, and its answer comes.

        :raises LookupError: if its participant was not given.
        """
        return self._settle(self._world.run_handler(self._machine, self._call))

    def _have_effect(self, after_effect: bool) -> None:
        if after_effect:
            self._world.run_handler(self._machine, self._call)

    def _error(self, code: str, message: str, data: object = None) -> Error:
        return Error(code, message, self._order.node.step.participant, payload_of(data))

    def _settle(self, verdict: Verdict) -> Next:
        self._world.settle(self._machine, self._call, verdict)
        return self._following()


class ExpectedCall(_Expected[Next], Generic[Result, Next]):
    """An Execute that was expected and made. Say how it ends; said later, it is in flight until then."""

    def replies(self, output: Result) -> Next:
        """Success, with this output."""
        return self._settle(Succeeded(payload_of(output)))


class ExpectedCompensation(_Expected[Next]):
    """A Compensate that was expected and made. Say how it ends; said later, it is in flight until then."""

    def succeeds(self) -> Next:
        """Success: there is no effect any more."""
        return self._settle(Succeeded())
