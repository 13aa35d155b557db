"""Calls for a `Transport` without a runner, and what became of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from amends_server.engine.commands import Verdict
from amends_server.engine.due import CallOrder, order_call, owed_calls
from amends_server.transport.attempts import LateCall
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.links import Transport
from amends_server.transport.requests import Origin
from tests.engine.build import Run, compensatable
from tests.sessions.raw import WAIT_S, RawParticipant


class Calls:
    """Sends calls, and gets what they tell, in that order."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._verdicts = asyncio.Queue[Verdict]()

    def send(
        self, worker: RawParticipant, *, labels: dict[str, str] | None = None, concurrency_max: int = 1_000, **more: Any
    ) -> None:
        """Send a call to a participant, of an order that is changed so."""
        endpoint = Endpoint("p", worker.address, concurrency_max)
        self.transport.send(endpoint, an_order(**more), an_origin(labels or {}), self._verdicts.put_nowait)

    async def verdict(self) -> Verdict:
        return await asyncio.wait_for(self._verdicts.get(), WAIT_S)


def ignore(call: LateCall, verdict: Verdict) -> None:
    """Take an answer that comes too late."""


def an_order(**more: Any) -> CallOrder:
    """A call that nobody is in a hurry about."""
    run = Run(compensatable("a"))
    (owed,) = owed_calls(run.state)
    return replace(order_call(run.state, owed), **({"timeout_us": 60_000_000} | more))


def an_origin(labels: dict[str, str]) -> Origin:
    started = replace(Run(compensatable("a")).state.started, labels=labels)
    return Origin(started=started, definition_name="order", definition_version=1, epoch=1)
