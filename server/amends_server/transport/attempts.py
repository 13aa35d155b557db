"""Attempts on their way to a participant, and what is kept of one whose time was up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

import structlog

from amends_server.engine.commands import NotSent, Unknown, Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.events import StepFailed
from amends_server.engine.payload import Error, payload_size_bytes
from amends_server.engine.policy import Time
from amends_server.engine.value import dataclass
from amends_server.transport.requests import Origin

Told = Callable[[Verdict], None]
"""Called once, with what an attempt told."""

Obstacle = Callable[[], NotSent | None]
"""Asked just before an attempt is sent, and now and then before: what to tell instead, None if it is to be sent."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LateCall:
    """An attempt that was told to be over: enough to record its answer, if there is one after all."""

    namespace: str
    saga_id: str
    step: str
    compensation: bool
    attempt: int


def nothing() -> None:
    """Have an attempt sent whatever has happened since it was asked for."""


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt, from when it is asked for until it is over. Its time begins to run when it is sent: see `begin`.

    `returned`: a participant has had it and has not begun it. That is borne once: a second time counts.
    """

    order: CallOrder
    origin: Origin
    told: Told
    in_its_way: Obstacle = nothing
    timeout_us: int = 0
    expire_time: Time = 0
    returned: bool = False
    payload_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.payload_bytes = _payload_bytes(self.order)

    def obstacle(self, now: Time) -> Verdict | None:
        """Return what to tell if it is not to be sent any more, None if it is."""
        order = self.order
        try:
            if (not_sent := self.in_its_way()) is not None:
                return not_sent
        except Exception as bug:
            return self.broken(bug)
        if order.deadline is not None and order.deadline <= now:
            participant = order.node.step.participant
            return NotSent(Error("TIMEOUT", "The step's deadline passed before the call was sent.", participant))
        return None

    def begin(self, now: Time) -> None:
        """Let its time run."""
        order = self.order
        self.timeout_us = order.timeout_us if order.deadline is None else min(order.timeout_us, order.deadline - now)
        self.expire_time = now + self.timeout_us

    def broken(self, bug: Exception) -> Unknown:
        """Return what a call tells that met a bug of ours. Only the bug's name: its text may quote payloads (I46)."""
        participant, name = self.order.node.step.participant, type(bug).__name__
        log.error("call_broke", participant=participant, error=name)
        return Unknown(Error("INTERNAL", f"The call met a bug of the orchestrator: {name}.", participant), again=False)

    def tell(self, verdict: Verdict) -> None:
        """Call back. One saga's bug must not stop those that share a stream with it."""
        try:
            self.told(verdict)
        except Exception as bug:
            log.error("verdict_lost", participant=self.order.node.step.participant, error=type(bug).__name__)

    def late(self) -> LateCall:
        """Return what is kept of it when its time is up."""
        order, started = self.order, self.origin.started
        step = order.node.step.id
        return LateCall(started.namespace, started.saga_id, step, order.compensation, order.attempt)


def _payload_bytes(order: CallOrder) -> int:
    """Count the bytes of user data in a request."""
    size = payload_size_bytes(order.input)
    if order.compensation:
        size += payload_size_bytes(order.output) + payload_size_bytes(order.arguments)
        size += payload_size_bytes(order.saga_input)
        if isinstance(order.cause, StepFailed):
            size += payload_size_bytes(order.cause.error.data)
    return size
