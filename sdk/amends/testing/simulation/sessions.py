"""A simulated client's session: one start over a stream, its acknowledgement, and its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from amends.testing.simulation.process import CallFailed, Process, SimulatedContext
from amends.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from amends.testing.simulation.world import World

CREDITS = 10
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Stream(SimulatedContext):
    """The server's end of a stream, and what the client has got by it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._got: asyncio.Queue[pb.SessionOutcome] = asyncio.Queue()
        self._ended: asyncio.Future[Any] = world.loop.create_future()
        process.waiting.append(self._ended)
        servicer: Any = process.orchestrator
        self._task = process.spawn(servicer.Session(None, self))

    async def read(self) -> Any:
        """Give the server the next request."""
        return await self._sent.get()

    async def write(self, response: pb.OrchestratorServiceSessionResponse) -> None:
        """Take a response of the server."""
        if self._world.effect(self._process, "crash before an acknowledgement"):
            await self._world.never()
        for outcome in response.outcomes:
            self._got.put_nowait(outcome)

    def send(self, request: pb.StartSagaRequest) -> None:
        """Start a saga."""
        start = pb.SessionStart(id=1, start=request)
        self._sent.put_nowait(pb.OrchestratorServiceSessionRequest(starts=[start], result_credits=CREDITS))

    async def next(self, timeout_s: float) -> pb.SessionOutcome:
        """Return the next outcome that is OK. :raises CallFailed: with its status, or that of the network."""
        getting = self._world.loop.create_task(self._got.get())
        await asyncio.wait([getting, self._ended], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            lost = self._ended.done()
            raise CallFailed(grpc.StatusCode.UNAVAILABLE if lost else grpc.StatusCode.DEADLINE_EXCEEDED)
        outcome: pb.SessionOutcome = getting.result()
        if outcome.status_code:
            raise CallFailed(CODES[outcome.status_code])
        return outcome

    def close(self) -> None:
        """Let go of the stream, as a client does that has what it wanted, or wants it no more."""
        self._sent.put_nowait(grpc.aio.EOF)
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()
        self._ended.cancel()
        self._world.loop.call_soon(self._task.cancel, context=self._process.context)
