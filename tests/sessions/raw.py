"""A participant that serves sessions by hand: the test sees each call, and says when and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from amends.v1 import participant_pb2 as pb
from amends.v1 import payload_pb2, saga_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["ParticipantService"].full_name
WAIT_S = 30.0
Context = grpc.aio.ServicerContext[Any, Any]
Answers = asyncio.Queue[pb.SessionResponse | grpc.StatusCode | None]
"""What is to be said in a session; None and statuses end it."""


class RawParticipant:
    """Takes calls of sessions into `calls`, and says in the session that was opened last what is in `answers`.

    `batches`: how many calls came in each message.

    `credits`: how many it says at first that it takes; below 0, nothing. It reads no session that is opened while it is
    `deaf`.
    """

    def __init__(self, call_credits: int = 100) -> None:
        self.address = "127.0.0.1:0"
        self.credits = call_credits
        self.calls: asyncio.Queue[pb.SessionCall] = asyncio.Queue()
        self.opened = 0
        self.deaf = False
        self.result_credits = 0
        self.batches: list[int] = []
        self.answers: Answers = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            self._session, pb.SessionRequest.FromString, pb.SessionResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Session": handler})])
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address)}"
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def until_opened(self) -> None:
        """Wait until a session was opened."""
        async with asyncio.timeout(WAIT_S):
            while not self.opened:  # noqa: ASYNC110 – what comes before the first call has no event
                await asyncio.sleep(0.01)

    async def call(self) -> pb.SessionCall:
        """The next call that comes."""
        return await asyncio.wait_for(self.calls.get(), WAIT_S)

    def succeed(self, *calls: pb.SessionCall, call_credits: int | None = None) -> None:
        """Answer calls in one message, with as many new credits if nothing else is said."""
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=payload_pb2.Payload(json="1"))
        results = [pb.SessionResult(id=call.id, reply=reply) for call in calls]
        given = len(calls) if call_credits is None else call_credits
        self.answers.put_nowait(pb.SessionResponse(results=results, call_credits=given))

    def refuse(self, call: pb.SessionCall, code: grpc.StatusCode, message: str) -> None:
        """Answer a call with a status."""
        result = pb.SessionResult(id=call.id, status_code=code.value[0], status_message=message)
        self.answers.put_nowait(pb.SessionResponse(results=[result], call_credits=1))

    def decline(self, *calls: pb.SessionCall) -> None:
        """Say in one message that calls were not begun."""
        code = grpc.StatusCode.UNAVAILABLE.value[0]
        results = [pb.SessionResult(id=call.id, status_code=code, not_taken=True) for call in calls]
        self.answers.put_nowait(pb.SessionResponse(results=results, call_credits=len(calls)))

    def give(self, call_credits: int) -> None:
        self.answers.put_nowait(pb.SessionResponse(call_credits=call_credits))

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """End the stream, with OK or another status."""
        self.answers.put_nowait(code)

    async def _session(self, requests: Any, context: Context) -> None:
        self.opened += 1
        self.answers = asyncio.Queue()
        out = self.answers
        reader = asyncio.create_task(asyncio.sleep(0) if self.deaf else self._read(context))
        try:
            if self.credits >= 0:
                await context.write(pb.SessionResponse(call_credits=self.credits))
            while isinstance(response := await out.get(), pb.SessionResponse):
                await context.write(response)
            if response is not None:
                await context.abort(response, "scripted")
        finally:
            reader.cancel()

    async def _read(self, context: Context) -> None:
        while isinstance(request := await context.read(), pb.SessionRequest):
            self.result_credits += request.result_credits
            self.batches.append(len(request.calls))
            for call in request.calls:
                self.calls.put_nowait(call)


@asynccontextmanager
async def raw(call_credits: int = 100) -> AsyncGenerator[RawParticipant]:
    """A participant that listens."""
    participant = RawParticipant(call_credits)
    await participant.start()
    try:
        yield participant
    finally:
        await participant.stop()
