"""Calls a participant in batches over one long stream: what gathers while a message is written goes into the next.

A session is one stream, from its opening to its end. Nothing is sent before the participant's first message, which
says how many calls it takes: so a participant without sessions is found out before anything is lost. From then on a
call is *queued*, then *sent*, then over: by its result, by its time, or by the end of the stream. Of calls that were
sent and have no result when the stream ends, the outcome is unknown, and they are told so; whether they are sent again
is for the engine to say. Calls that were only queued are handed back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import grpc
import structlog

from amends.v1 import participant_pb2, participant_pb2_grpc
from amends_server.engine.commands import Unknown, Verdict
from amends_server.engine.payload import Error
from amends_server.transport.attempts import Attempt
from amends_server.transport.deadlines import Deadlines
from amends_server.transport.requests import write_compensate, write_execute
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

BATCH_BYTES_MAX = 1 << 20
"""User data in one message: below what any gRPC server takes by default, and no call waits long for another's bytes."""

RESULTS_MAX = 4_096
"""Results that a participant may send before we have dealt with the first of them."""

LATE_MAX = 10_000
"""Calls whose time was up and whose results are still known for what they are when they come."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Open:
    """A call without a result. `place` is its place among the deadlines."""

    attempt: Attempt
    payload_bytes: int
    place: int
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended. `begun`: the participant had answered. `fruitful`: there was a result at least."""

    code: grpc.StatusCode
    details: str
    begun: bool
    fruitful: bool


class Session:
    """One stream. `over` is called with each attempt and what it told; `ended` at the end, with those not sent."""

    def __init__(
        self,
        stub: participant_pb2_grpc.ParticipantServiceStub,
        *,
        participant: str,
        payload_bytes_max: int,
        over: Callable[[Attempt, Verdict], None],
        ended: Callable[[Session, Ending, list[Attempt]], None],
    ) -> None:
        self._participant = participant
        self._payload_bytes_max = payload_bytes_max
        self._over = over
        self._ended = ended
        self._open: dict[int, _Open] = {}
        self._queue: deque[int] = deque()
        self._late: OrderedDict[int, Attempt] = OrderedDict()
        self._deadlines = Deadlines(self._expire)
        self._last_id = 0
        self._call_credits = 0
        self._result_credits_owed = RESULTS_MAX
        self._begun = self._fruitful = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._stream = stub.Session()
        self._running = asyncio.create_task(self._run(), name=f"session with {participant}")

    def send(self, attempt: Attempt, payload_bytes: int, timeout_us: int) -> None:
        """Queue an attempt."""
        self._last_id += 1
        place = self._deadlines.add(self._last_id, timeout_us)
        self._open[self._last_id] = _Open(attempt, payload_bytes, place)
        self._queue.append(self._last_id)
        self._wake.set()

    async def close(self) -> None:
        """End the stream; of what is open nobody is told."""
        self._deadlines.clear()
        self._running.cancel()
        await asyncio.wait([self._running])

    async def _run(self) -> None:
        writer = asyncio.create_task(self._write())
        try:
            code, details = await self._read()
        finally:
            writer.cancel()
            self._stream.cancel()
            await asyncio.wait([writer])
        self._end(code, details)

    async def _write(self) -> None:
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):  # `_read` knows why
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (batch := self._batch()) is not None:
                    await self._stream.write(batch)

    async def _read(self) -> tuple[grpc.StatusCode, str]:
        """Take what comes until the end of the stream, and return how it ended."""
        try:
            while (response := await self._stream.read()) is not grpc.aio.EOF:
                if not isinstance(response, participant_pb2.SessionResponse):  # None, when it cannot be decoded
                    return grpc.StatusCode.INTERNAL, "a response cannot be decoded"
                self._take(response)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        except grpc.aio.UsageError as error:  # the channel was closed under the stream
            return grpc.StatusCode.CANCELLED, str(error)
        return await self._stream.code(), await self._stream.details() or ""

    # Out

    def _batch(self) -> participant_pb2.SessionRequest | None:
        """Make a message of what may be sent now; None if there is nothing worth a message."""
        request = participant_pb2.SessionRequest()
        self._add_calls(request)
        owed = self._result_credits_owed
        if not request.calls and owed < RESULTS_MAX // 2:
            return None
        request.result_credits = owed
        self._result_credits_owed = 0
        return request

    def _add_calls(self, request: participant_pb2.SessionRequest) -> None:
        queue, size = self._queue, 0
        while queue and self._call_credits > 0:
            entry = self._open.get(queue[0])
            if entry is not None:  # else its time was up while it was queued
                size += entry.payload_bytes
                if size > BATCH_BYTES_MAX and request.calls:
                    self._wake.set()
                    return
                self._add_call(request.calls.add(), queue[0], entry)
            queue.popleft()

    def _add_call(self, call: participant_pb2.SessionCall, call_id: int, entry: _Open) -> None:
        attempt = entry.attempt
        call.id = call_id
        if attempt.order.compensation:
            write_compensate(call.compensate, attempt.order, attempt.origin, attempt.expire_time)
        else:
            write_execute(call.execute, attempt.order, attempt.origin, attempt.expire_time)
        entry.sent = True
        self._call_credits -= 1

    # In

    def _take(self, response: participant_pb2.SessionResponse) -> None:
        self._begun = True
        self._call_credits += response.call_credits
        self._result_credits_owed += len(response.results)
        for result in response.results:
            self._fruitful = True
            self._take_result(result)
        self._wake.set()

    def _take_result(self, result: participant_pb2.SessionResult) -> None:
        entry = self._open.pop(result.id, None)
        if entry is not None:
            self._deadlines.remove(result.id, entry.place)
            self._over(entry.attempt, self._verdict(result, entry.attempt))
        elif (late := self._late.pop(result.id, None)) is not None:
            late.tell(self._verdict(result, late))
        else:
            log.warning("result_unknown", participant=self._participant)

    def _verdict(self, result: participant_pb2.SessionResult, attempt: Attempt) -> Verdict:
        if result.status_code == 0:
            return verdict_of_reply(self._participant, result.reply, self._payload_bytes_max)
        code = _STATUS_CODES.get(result.status_code, grpc.StatusCode.UNKNOWN)
        compensation = attempt.order.compensation
        return verdict_of_status(self._participant, code, result.status_message, compensation=compensation)

    def _expire(self, call_id: int) -> None:
        entry = self._open.pop(call_id)
        if entry.sent:
            self._late[call_id] = entry.attempt
            if len(self._late) > LATE_MAX:
                self._late.popitem(last=False)
        text = "" if entry.sent else "the call waited for its turn all the time"
        code, compensation = grpc.StatusCode.DEADLINE_EXCEEDED, entry.attempt.order.compensation
        self._over(entry.attempt, verdict_of_status(self._participant, code, text, compensation=compensation))

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._deadlines.clear()
        entries, self._open = self._open, {}
        self._ended(
            self,
            Ending(code, details, self._begun, self._fruitful),
            [entry.attempt for entry in entries.values() if not entry.sent],
        )
        text = f"{self._participant} gave no reply: the session ended ({code.name}{': ' if details else ''}{details})"
        for entry in entries.values():
            if entry.sent:
                self._over(entry.attempt, Unknown(Error("UNAVAILABLE", text[:500], self._participant)))
