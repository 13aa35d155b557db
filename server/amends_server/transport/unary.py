"""Calls a participant with one RPC an attempt: what every participant understands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import structlog

from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2
from amends_server.clock import Clock
from amends_server.engine.commands import Unknown, Verdict
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US
from amends_server.transport.attempts import Attempt
from amends_server.transport.requests import compensate_request, execute_request
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

log = structlog.stdlib.get_logger(__name__)


class UnaryCalls:
    """Calls over a channel. `over` is called with each attempt and what it told, `lost` when nobody was there."""

    def __init__(
        self,
        stub: participant_pb2_grpc.ParticipantServiceStub,
        *,
        participant: str,
        clock: Clock,
        payload_bytes_max: int,
        over: Callable[[Attempt, Verdict], None],
        lost: Callable[[], None],
    ) -> None:
        self._stub = stub
        self._participant = participant
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._over = over
        self._lost = lost
        self._calls: set[asyncio.Task[None]] = set()

    def send(self, attempt: Attempt) -> None:
        """Send an attempt, whose time runs already."""
        call = asyncio.create_task(self._call(attempt))
        self._calls.add(call)
        call.add_done_callback(self._ended)

    async def close(self) -> None:
        """End all calls."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (bug := call.exception()) is not None:
            log.error("call_broke", participant=self._participant, error=type(bug).__name__)

    async def _call(self, attempt: Attempt) -> None:
        try:
            verdict = await self._ask(attempt)
        except Exception as bug:
            verdict = attempt.broken(bug)
        self._over(attempt, verdict)

    async def _ask(self, attempt: Attempt) -> Verdict:
        order, origin, name = attempt.order, attempt.origin, self._participant
        traceparent = origin.started.traceparent
        metadata = (("traceparent", traceparent),) if traceparent else None
        timeout_s = (attempt.expire_time - self._clock.now()) / SECOND_US
        try:
            if order.compensation:
                undo = compensate_request(order, origin, attempt.expire_time)
                reply = _reply(await self._stub.Compensate(undo, timeout=timeout_s, metadata=metadata))
            else:
                do = execute_request(order, origin, attempt.expire_time)
                reply = _reply(await self._stub.Execute(do, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._lost()
            return verdict_of_status(name, error.code(), error.details() or "", compensation=order.compensation)
        except grpc.aio.UsageError as error:  # the channel was closed under the call
            return Unknown(Error("CANCELLED", f"The call was ended: {error}", name))
        return verdict_of_reply(name, reply, self._payload_bytes_max)


def _reply(
    response: participant_pb2.ExecuteResponse | participant_pb2.CompensateResponse | None,
) -> saga_pb2.Reply | None:
    """Return what a response holds. One that cannot be decoded comes as None with OK, whatever the stub's type says."""
    return None if response is None else response.reply
