"""Calls a participant in batches over one long stream: what gathers while a message is written goes into the next.

A session is one stream, from its opening to its end. Nothing is sent before the participant's first message, which
says how many calls it takes: so a participant without sessions is found out before anything is lost. From then on a
call is taken from its source when it can be written at once, and is over by its result, by its time, or by the end of
the stream. Of calls that have no result when the stream ends, the outcome is unknown, and they are told so; whether
they are sent again is for the engine to say. What was not taken stays in the source. A call that the participant says
it has not begun, because it is about to end, goes back there, and nothing more is sent over this session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Protocol

import grpc
import structlog

from amends._deadlines import Deadlines
from amends.v1 import participant_pb2, participant_pb2_grpc
from amends_server.convert.times import set_duration
from amends_server.engine.commands import Unknown, Verdict
from amends_server.engine.payload import Error
from amends_server.engine.value import dataclass
from amends_server.transport.attempts import Attempt, LateCall
from amends_server.transport.endpoint import message_bytes_max
from amends_server.transport.late import LateCalls
from amends_server.transport.requests import write_compensate, write_execute
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

BATCH_BYTES_MAX = 1 << 20
"""Of calls in one message, but for what its last one takes beside payloads: far below what any gRPC server takes by
default, and no call waits long for another's bytes."""

RESULTS_MAX = 4_096
"""Results that a participant may send before we have dealt with the first of them."""

RESULTS_AT_ONCE = 64
"""Results that are dealt with before others get a turn: in a saga of thousands of steps each may take a millisecond."""

OPENING_S = 5.0
"""How long a participant may take to say how many calls it takes, connecting included; after that it is not there."""

STARVED_S = 5.0
"""How long a participant without calls may take none of those that wait: a new session begins with new credits."""

_TOO_MANY = f"it sent more than {RESULTS_MAX} results that nobody waits for"

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

LateTold = Callable[[LateCall, Verdict], None]
"""Called with an answer to an attempt that was told to be over."""

log = structlog.stdlib.get_logger(__name__)


class Source(Protocol):
    """Where calls wait until they can be written."""

    @property
    def waits(self) -> bool:
        """Tell whether there are any."""
        ...

    def take(self, room_bytes: int) -> Attempt | None:
        """Return the next one that may be sent now and has no more payload, its time running; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended. `begun`: the participant had answered. `fruitful`: another one may get further."""

    code: grpc.StatusCode
    details: str
    begun: bool
    fruitful: bool


class Session:
    """One stream. `over` is called with each attempt and what it told, and `ended` once, at the end.

    `returned` is called with an attempt that the participant has not begun; False if nobody makes it anew. `begun`: the
    participant has answered.
    """

    def __init__(
        self,
        stub: participant_pb2_grpc.ParticipantServiceStub,
        *,
        participant: str,
        payload_bytes_max: int,
        source: Source,
        over: Callable[[Attempt, Verdict], None],
        returned: Callable[[Session, Attempt], bool],
        ended: Callable[[Session, Ending], None],
        late: LateTold,
    ) -> None:
        self._participant = participant
        self._payload_bytes_max = payload_bytes_max
        self._source = source
        self._over = over
        self._returned = returned
        self._ended = ended
        self._tell_late = late
        self._open: dict[int, Attempt] = {}
        self._late = LateCalls()
        self._deadlines = Deadlines(self._expire)
        self._last_id = 0
        self._call_credits = 0
        self._starved_at = inf
        self._result_credits_owed = RESULTS_MAX
        self._strangers = 0
        self.begun = False
        self._fruitful = self._gave_up = self._leaving = self._said = False
        self._writing_from = 0  # the first of the calls that are being written, 0 for none
        self._wake = asyncio.Event()
        self._stream = stub.Session()
        self._running = asyncio.create_task(self._run(), name=f"session with {participant}")

    def wake(self) -> None:
        """Say that there is something in the source."""
        self._wake.set()
        if self._writing_from and not self._open:  # their time is up, and the stream is still not read
            self._fruitful = True
            self._stream.cancel()

    async def close(self) -> None:
        """End the stream; of what is open nobody is told."""
        self._deadlines.clear()
        self._running.cancel()
        await asyncio.wait([self._running])

    async def _run(self) -> None:
        """Read and write until one of the two ends, whatever the reason; then the session is over."""
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        opening = asyncio.get_running_loop().call_later(OPENING_S, self._give_up)
        try:
            await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            self._stream.cancel()  # changes nothing if the stream has ended, and has the reader end
            await asyncio.wait([reader])
        finally:
            opening.cancel()
            writer.cancel()
            reader.cancel()
            self._stream.cancel()
            await asyncio.wait([reader, writer])
        self._end(*self._ending(reader, writer))

    def _ending(
        self, reader: asyncio.Task[tuple[grpc.StatusCode, str]], writer: asyncio.Task[None]
    ) -> tuple[grpc.StatusCode, str]:
        for half in (reader, writer):
            if not half.cancelled() and (bug := half.exception()) is not None:
                name = type(bug).__name__  # its text may quote payloads (I46)
                log.error("session_broke", participant=self._participant, error=name)
                return grpc.StatusCode.INTERNAL, f"a bug of the orchestrator: {name}"
        if self._gave_up:
            return grpc.StatusCode.DEADLINE_EXCEEDED, f"it opened no session within {OPENING_S:g} s"
        if reader.cancelled():
            return grpc.StatusCode.CANCELLED, "ended by the orchestrator"
        return reader.result()

    def _give_up(self) -> None:
        if not self.begun:
            self._gave_up = True
            self._stream.cancel()

    async def _write(self) -> None:
        """Write until there is no use in it any more."""
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):  # `_read` knows why
            while not self._stalls() and (self._open or not self._leaving):
                await self._wake.wait()
                self._wake.clear()
                while (batch := self._batch()) is not None:
                    self._writing_from = batch.calls[0].id if batch.calls else 0
                    await self._stream.write(batch)
                    self._writing_from = 0
            self._fruitful = True

    def _stalls(self) -> bool:
        """Tell whether calls wait for a participant that has none and takes none, and may never take another one.

        The time of those that it took is up; or it has answered them, and has given no credits back for a while.
        """
        if not self.begun or self._call_credits > 0 or self._open or not self._source.waits:
            self._starved_at = inf
            return False
        now = asyncio.get_running_loop().time()
        self._starved_at = min(self._starved_at, now + STARVED_S)
        if self._starved_at <= now:
            log.warning("no_credits_for_calls", participant=self._participant)
        return len(self._late) > 0 or self._starved_at <= now

    async def _read(self) -> tuple[grpc.StatusCode, str]:
        """Take what comes until the end of the stream, and return how it ended."""
        try:
            while (response := await self._stream.read()) is not grpc.aio.EOF:
                if not isinstance(response, participant_pb2.SessionResponse):  # None, when it cannot be decoded
                    return grpc.StatusCode.INTERNAL, "a response cannot be decoded"
                if len(response.results) > RESULTS_MAX:
                    return grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_MANY
                await self._take(response)
                if self._strangers > RESULTS_MAX:
                    return grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_MANY
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        except grpc.aio.UsageError as error:  # the channel was closed under the stream
            return grpc.StatusCode.CANCELLED, str(error)
        return await self._stream.code(), await self._stream.details() or ""

    # Out

    def _batch(self) -> participant_pb2.SessionRequest | None:
        """Make a message of what may be sent now; None if there is nothing worth a message.

        Nothing is until the participant has spoken: grpc.aio says INTERNAL where a write meets the end of a stream, and
        what the participant said is lost.
        """
        if not self.begun:
            return None
        request = participant_pb2.SessionRequest()
        self._add_calls(request)
        owed = self._result_credits_owed
        if not request.calls and owed < RESULTS_MAX // 2:
            return None
        if not self._said:
            self._said, request.response_bytes_max = True, message_bytes_max(self._payload_bytes_max)
        request.result_credits = owed
        self._result_credits_owed = 0
        return request

    def _add_calls(self, request: participant_pb2.SessionRequest) -> None:
        room_bytes = BATCH_BYTES_MAX
        if self._leaving:
            return
        while room_bytes > 0 and self._call_credits > 0 and (attempt := self._source.take(room_bytes)) is not None:
            try:
                room_bytes -= self._add_call(request.calls.add(), attempt)
            except Exception as bug:
                del request.calls[-1]
                self._over(attempt, attempt.broken(bug))

    def _add_call(self, call: participant_pb2.SessionCall, attempt: Attempt) -> int:
        """Write a call, and return its size in bytes."""
        if attempt.order.compensation:
            write_compensate(call.compensate, attempt.order, attempt.origin, attempt.expire_time)
        else:
            write_execute(call.execute, attempt.order, attempt.origin, attempt.expire_time)
        set_duration(call.timeout, attempt.timeout_us)
        self._last_id += 1
        call.id = self._last_id
        size_bytes = call.ByteSize()  # a fraction of a microsecond: to add up names and labels would take longer
        self._open[self._last_id] = attempt
        self._deadlines.add(self._last_id, attempt.timeout_us / 1e6)
        self._call_credits -= 1
        return size_bytes

    # In

    async def _take(self, response: participant_pb2.SessionResponse) -> None:
        self.begun = True
        self._call_credits += response.call_credits
        self._result_credits_owed += len(response.results)
        for place, result in enumerate(response.results, start=1):
            self._fruitful = True
            self._take_result(result)
            if place % RESULTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._wake.set()

    def _take_result(self, result: participant_pb2.SessionResult) -> None:
        call_id = result.id
        attempt = self._open.pop(call_id, None)
        if attempt is not None:
            self._strangers = 0
            if call_id >= self._writing_from:  # the message was read, though nobody has said yet that it was written
                self._writing_from = 0
            self._deadlines.remove(call_id)
            if result.not_taken and self._returned(self, attempt):
                self._leaving = True
                return
            try:
                verdict = self._verdict(result, compensation=attempt.order.compensation)
            except Exception as bug:
                verdict = attempt.broken(bug)
            self._over(attempt, verdict)
        elif (late := self._late.pop(call_id)) is not None:
            self._take_late(late, result)
        else:
            self._strangers += 1
            if self._strangers == 1:  # more of them say nothing more
                log.warning("result_unknown", participant=self._participant)

    def _take_late(self, late: LateCall, result: participant_pb2.SessionResult) -> None:
        try:
            self._tell_late(late, self._verdict(result, compensation=late.compensation))
        except Exception as bug:  # it changes nothing, so that no other call of the stream may hang on it
            log.error("late_reply_broke", participant=self._participant, error=type(bug).__name__)

    def _verdict(self, result: participant_pb2.SessionResult, *, compensation: bool) -> Verdict:
        if result.status_code == 0:
            return verdict_of_reply(self._participant, result.reply, self._payload_bytes_max)
        code = _STATUS_CODES.get(result.status_code, grpc.StatusCode.UNKNOWN)
        return verdict_of_status(self._participant, code, result.status_message, compensation=compensation)

    def _expire(self, call_id: int) -> None:
        attempt = self._open.pop(call_id)
        self._late.add(call_id, attempt.late(), asyncio.get_running_loop().time())
        code, compensation = grpc.StatusCode.DEADLINE_EXCEEDED, attempt.order.compensation
        self._over(attempt, verdict_of_status(self._participant, code, "", compensation=compensation))
        self._wake.set()

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._deadlines.clear()
        attempts, self._open = self._open, {}
        self._ended(self, Ending(code, details, self.begun, self._fruitful))
        text = f"{self._participant} gave no reply: the session ended ({code.name}{': ' if details else ''}{details})"
        for attempt in attempts.values():
            self._over(attempt, Unknown(Error("UNAVAILABLE", text[:500], self._participant)))
