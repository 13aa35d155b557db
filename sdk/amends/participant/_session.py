"""Sessions: calls and results in batches over one long stream, for orchestrators that know them.

Every call is a task of its own, so a slow handler holds up no other, and what has results while a message is written
goes into the next one. Credits bound both sides: no more calls are taken than `CALLS_MAX`, and no more results sent
than the orchestrator is ready for.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from amends._deadlines import Deadlines
from amends._unreadable import UNREADABLE_TEXT
from amends.v1 import participant_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

CALLS_MAX = 1024  # in a session at a time; an orchestrator has few sessions, mostly one
BATCH_BYTES_MAX = 1 << 20  # of results in one message: none waits long for the bytes of others
FRAME_BYTES = 64  # what stands around a result that is alone in its message, and more

Answer = Callable[[participant_pb2.SessionCall], Coroutine[object, object, participant_pb2.SessionResult]]


class Refusal(Exception):
    """Why a stream is ended, or a call is not taken."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Session:
    """One stream. `answer` does a call, and raises nothing but CancelledError."""

    def __init__(self, context: Context, answer: Answer) -> None:
        self._context = context
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.Task[participant_pb2.SessionResult]] = {}
        self._deadlines = Deadlines(self._expire)
        self._late: set[int] = set()
        self._results: deque[participant_pb2.SessionResult] = deque()
        self._held = 0  # calls whose results are not sent yet
        self._last_number = 0  # the ids of calls may come twice
        self._result_credits = 0
        self._response_bytes_max = math.inf
        self._call_credits_owed = CALLS_MAX
        self._ending = False
        self._refusal: Refusal | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Serve until the orchestrator goes, or, once `drain` was called, until all calls are answered.

        :raises Refusal: if it sends what cannot be read, or far more than it was allowed to.
        """
        reader = asyncio.create_task(self._read())
        try:
            while (response := await self._next()) is not None:
                await self._context.write(response)
            if self._refusal is not None:
                raise self._refusal
        finally:  # nobody waits for what runs on, as nobody does when a single call is broken off
            self._deadlines.clear()
            for task in (reader, *self._running.values()):
                task.cancel()

    def drain(self) -> None:
        """Take no more calls, and end when those in flight are answered."""
        self._ending = True
        self._wake.set()

    async def _read(self) -> None:
        try:
            while (request := await self._context.read()) is not grpc.aio.EOF:
                if not isinstance(request, participant_pb2.SessionRequest):
                    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE_TEXT)
                self._result_credits += request.result_credits
                if request.response_bytes_max > 0:
                    self._response_bytes_max = request.response_bytes_max
                for call in request.calls:
                    self._take(call)
                self._wake.set()
        except Refusal as refusal:
            self._refusal = refusal
        finally:
            self.drain()

    def _take(self, call: participant_pb2.SessionCall) -> None:
        self._held += 1
        if self._ending:
            self._refuse(call, grpc.StatusCode.UNAVAILABLE, "the participant is about to end")
        elif self._held > 2 * CALLS_MAX:  # each refusal is kept until it is taken
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"far more than {CALLS_MAX} calls at a time")
        elif self._held > CALLS_MAX:
            self._refuse(call, grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {CALLS_MAX} calls at a time")
        else:
            self._begin(call)

    def _begin(self, call: participant_pb2.SessionCall) -> None:
        """Do a call, which is broken off when its time is up."""
        self._last_number = number = self._last_number + 1
        self._running[number] = task = self._loop.create_task(self._answer(call))
        task.add_done_callback(partial(self._done, call.id, number))
        if call.HasField("timeout"):
            self._deadlines.add(number, call.timeout.seconds + call.timeout.nanos / 1e9)

    def _expire(self, number: int) -> None:
        self._late.add(number)
        self._running[number].cancel()

    def _refuse(self, call: participant_pb2.SessionCall, code: grpc.StatusCode, message: str) -> None:
        """Tell of a call that its handler was not and will not be run for it."""
        result = refused(call.id, code, message)
        result.not_taken = True
        self._results.append(result)

    def _done(self, call_id: int, number: int, task: asyncio.Task[participant_pb2.SessionResult]) -> None:
        del self._running[number]
        self._deadlines.remove(number)
        if task.cancelled() or task.exception() is not None:  # a call without result would never give its credit back
            code = grpc.StatusCode.DEADLINE_EXCEEDED if number in self._late else grpc.StatusCode.INTERNAL
            self._results.append(refused(call_id, code, "the participant broke the call off"))
        else:
            self._results.append(task.result())
        self._late.discard(number)
        self._wake.set()

    async def _next(self) -> participant_pb2.SessionResponse | None:
        """The next message, as soon as there is something to say; None at the end."""
        while True:
            self._wake.clear()
            response = participant_pb2.SessionResponse()
            self._add_results(response)
            if self._refusal is not None:
                return None
            if response.results or self._call_credits_owed >= CALLS_MAX:
                response.call_credits, self._call_credits_owed = self._call_credits_owed, 0
                return response
            if self._ending and not self._held:
                return None
            await self._wake.wait()

    def _add_results(self, response: participant_pb2.SessionResponse) -> None:
        size = 0
        while self._results and self._result_credits > 0:
            each = self._results[0].ByteSize()
            size += each
            if size > BATCH_BYTES_MAX and response.results:
                return
            result = self._results.popleft()
            fits = each + FRAME_BYTES <= self._response_bytes_max
            response.results.append(result if fits else _too_large(result.id, each))
            self._held -= 1
            self._result_credits -= 1
            self._call_credits_owed += 1


def refused(call_id: int, code: grpc.StatusCode, message: str) -> participant_pb2.SessionResult:
    """The result of a call that was not taken."""
    number: int = code.value[0]
    return participant_pb2.SessionResult(id=call_id, status_code=number, status_message=message)


def _too_large(call_id: int, size_bytes: int) -> participant_pb2.SessionResult:
    """What gRPC says of a single call whose answer is too large: in a session it would break the stream for all."""
    message = f"the result is a message larger than max: {size_bytes} bytes"
    return refused(call_id, grpc.StatusCode.RESOURCE_EXHAUSTED, message)
