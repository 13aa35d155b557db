"""Attempts on their way to a participant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from amends_server.engine.commands import Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.payload import payload_size_bytes
from amends_server.engine.policy import Time
from amends_server.transport.requests import Origin

Told = Callable[[Verdict], None]
"""Called with what an attempt told: once, and once more if an answer comes after the attempt was told to be over."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt, from when it is asked for until it is over. `expire_time` is set when its time begins to run."""

    order: CallOrder
    origin: Origin
    told: Told
    expire_time: Time = 0

    def tell(self, verdict: Verdict) -> None:
        """Call back. One saga's bug must not stop those that share a stream with it."""
        try:
            self.told(verdict)
        except Exception as bug:
            log.error("verdict_lost", participant=self.order.node.step.participant, error=type(bug).__name__)

    def payload_bytes(self) -> int:
        """Count the bytes of user data in its request."""
        order = self.order
        size = payload_size_bytes(order.input)
        if order.compensation:
            size += payload_size_bytes(order.output) + payload_size_bytes(order.arguments)
            size += payload_size_bytes(order.saga_input)
        return size
