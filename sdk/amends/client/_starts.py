"""Starts in a session: a client's starts and the ends of its sagas share one stream, in batches.

What gathers while one message is written goes into the next. A start is over when the orchestrator has acknowledged it,
or refused it, or the stream has broken; then whether it took effect is unknown, and whoever waits may send it again
under the same id. The end of a saga is reported on the same stream; when that breaks, it has to be asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from amends._deadlines import Deadlines
from amends.errors import AmendsError, DeadlineExceeded, Unavailable, Unknown
from amends.ids import new_saga_id, new_saga_id_of
from amends.statuses import exception_of_status
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc, saga_pb2

OUTCOMES_MAX = 4096  # that the orchestrator may send before the first of them is dealt with
BATCH_BYTES_MAX = 1 << 20  # of starts in one message: below what an orchestrator takes
START_BYTES_MAX = 1 << 20  # larger ones go by themselves, for only then can they be refused by themselves
PROBE_AGAIN_S = 30.0  # after a session that did not come about: what was in its way may be gone by then

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What a server that stops, or is not there yet, says to a stream that it has not looked at.
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

Share = tuple[int, frozenset[int]]
"""How many partitions there are, and which are an orchestrator's own."""

log = logging.getLogger("amends.client")


class NoSessions(Exception):
    """The orchestrator opens no session now. Nothing was sent."""


class Ending:
    """The end of a saga, as it is reported once. `saga` is None until then; `lost`: it will not be reported."""

    __slots__ = ("_waiters", "lost", "saga")

    def __init__(self) -> None:
        self.saga: saga_pb2.Saga | None = None
        self.lost = False
        self._waiters: list[asyncio.Future[saga_pb2.Saga | None]] = []

    async def wait(self) -> saga_pb2.Saga | None:
        """The saga when it has settled; None if that has to be asked for."""
        waiter: asyncio.Future[saga_pb2.Saga | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in self._waiters:  # whoever waited has given up; the saga may go on for days
                self._waiters.remove(waiter)

    def resolve(self, saga: saga_pb2.Saga | None) -> None:
        self.saga, self.lost = saga, saga is None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(saga)


class _Start:
    """A start on its way. `acknowledged` is done once it is answered. `request` is None once it was written."""

    __slots__ = ("acknowledged", "ending", "request")

    def __init__(self, request: orchestrator_pb2.StartSagaRequest) -> None:
        self.request: orchestrator_pb2.StartSagaRequest | None = request
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ending = Ending()

    def fail(self, error: Exception) -> None:
        if not self.acknowledged.done():
            self.acknowledged.set_exception(error)
            self.acknowledged.exception()  # nobody may be waiting any more
        self.ending.resolve(None)


class Starts:
    """The session of a client. It is opened by the first start, and again by the first one after it broke."""

    def __init__(self, stub: orchestrator_pb2_grpc.OrchestratorServiceStub, timeout_s: float) -> None:
        self._stub = stub
        self._timeout_s = timeout_s
        self._session: _Session | None = None
        self._probe_at = 0.0  # on the clock of the loop; no session is tried before

    def new_id(self, namespace: str) -> str:
        """Make an id for a saga: of those that the orchestrator runs itself, as far as it has said which."""
        share = self._share
        return new_saga_id_of(namespace, *share) if share is not None and share[1] else new_saga_id()

    @property
    def has_no_share(self) -> bool:
        """Whether the orchestrator has said that it runs no sagas: it has just begun, or is about to end."""
        return self._share is not None and not self._share[1]

    @property
    def _share(self) -> Share | None:
        return self._session.share if self._session is not None and not self._session.over else None

    def takes(self, request: orchestrator_pb2.StartSagaRequest) -> bool:
        """Whether the start can go in a session, as far as is known."""
        if self._probe_at and asyncio.get_running_loop().time() < self._probe_at:
            return False
        return request.ByteSize() <= START_BYTES_MAX

    async def start(self, request: orchestrator_pb2.StartSagaRequest) -> Ending:
        """Start a saga, and return where its end will be told once the start is acknowledged.

        :raises NoSessions: if this has to be done by StartSaga.
        :raises RpcError: if it does not succeed.
        """
        session = self._session
        if session is None or session.over:
            session = self._session = _Session(self._stub, self._timeout_s)
        start = _Start(request)
        session.send(start)
        try:
            await start.acknowledged
        except NoSessions:
            self._probe_at = asyncio.get_running_loop().time() + PROBE_AGAIN_S
            raise
        return start.ending

    async def close(self) -> None:
        """End the session. What waits for it gets an AmendsError."""
        if self._session is not None:
            await self._session.close()


class _Session:
    """One stream."""

    def __init__(self, stub: orchestrator_pb2_grpc.OrchestratorServiceStub, timeout_s: float) -> None:
        self.over = False
        self.share: Share | None = None
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(self._expire)
        self._open: dict[int, _Start] = {}
        self._queue: deque[int] = deque()
        self._last_id = 0
        self._begun = False
        self._start_credits = 0
        self._result_credits_owed = OUTCOMES_MAX
        self._wake = asyncio.Event()
        self._stream = stub.Session()
        self._running = asyncio.create_task(self._run())

    def send(self, start: _Start) -> None:
        self._last_id = start_id = self._last_id + 1
        self._open[start_id] = start
        self._queue.append(start_id)
        self._deadlines.add(start_id, self._timeout_s)
        self._wake.set()

    def _expire(self, start_id: int) -> None:
        if (start := self._open.get(start_id)) is not None:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            start.fail(DeadlineExceeded("The start was not acknowledged in time.", code=code))

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        self._end(_closed)  # the task may have been cancelled before it began

    async def _run(self) -> None:
        """Serve the stream to its end. However that comes, nobody is left waiting."""
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        error: Callable[[], Exception] = _closed
        try:
            await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()  # raises only what the reader would wait for in vain
            error = partial(self._error, *await reader)
        except Exception as defect:
            log.exception("a session failed")
            error = partial(Unavailable, f"The session failed: {defect!r}", code=grpc.StatusCode.UNAVAILABLE)
        finally:
            self._end(error)
            reader.cancel()
            writer.cancel()

    def _error(self, code: grpc.StatusCode, details: str) -> Exception:
        """What the end of the stream means for those who wait."""
        if self._begun or code in _PASSING:
            return Unavailable(f"The session ended: {code.name} {details}", code=grpc.StatusCode.UNAVAILABLE)
        return NoSessions()  # also if it knows none: that may be the word of a proxy, or of the version before

    def _end(self, error: Callable[[], Exception]) -> None:
        """Tell each start of an error of its own, which is to name its saga."""
        self.over = True
        self._deadlines.clear()
        self._stream.cancel()
        starts, self._open = self._open, {}
        for start in starts.values():
            start.fail(error())

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
            while isinstance(
                response := await self._stream.read(), orchestrator_pb2.OrchestratorServiceSessionResponse
            ):
                self._take(response)
            if response is None:
                return grpc.StatusCode.INTERNAL, "an answer cannot be decoded"
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        except grpc.aio.UsageError as error:  # the channel was closed under the stream
            return grpc.StatusCode.CANCELLED, str(error)
        return await self._stream.code(), await self._stream.details() or ""

    def _batch(self) -> orchestrator_pb2.OrchestratorServiceSessionRequest | None:
        """A message of what may be sent now; None if there is nothing worth one.

        Nothing is until the orchestrator has spoken: grpc.aio says INTERNAL where a write meets the end of a stream,
        and what the orchestrator said is lost.
        """
        if not self._begun:
            return None
        message = orchestrator_pb2.OrchestratorServiceSessionRequest()
        size = 0
        while self._queue and self._start_credits > 0 and size < BATCH_BYTES_MAX:
            start_id = self._queue.popleft()
            start = self._open.get(start_id)
            if start is not None and not start.acknowledged.done():  # else nobody waits for it any more
                each = message.starts.add(id=start_id, start=start.request)
                each.start.wait = True
                start.request = None  # the saga may go on for days, and nobody reads its input here any more
                size += each.ByteSize()
                self._start_credits -= 1
            else:
                self._open.pop(start_id, None)
        if not message.starts and self._result_credits_owed < OUTCOMES_MAX // 2:
            return None
        message.result_credits, self._result_credits_owed = self._result_credits_owed, 0
        return message

    def _take(self, response: orchestrator_pb2.OrchestratorServiceSessionResponse) -> None:
        self._begun = True
        self._start_credits += response.start_credits
        self._result_credits_owed += len(response.outcomes)
        if response.HasField("share"):
            self.share = _share(response.share)
        for outcome in response.outcomes:
            try:
                self._take_outcome(outcome)
            except Exception as defect:  # one start must not take the others with it
                log.exception("an outcome cannot be understood")
                if (start := self._open.pop(outcome.id, None)) is not None:
                    start.fail(Unknown(f"The outcome cannot be read: {defect!r}", code=grpc.StatusCode.UNKNOWN))
        self._wake.set()

    def _take_outcome(self, outcome: orchestrator_pb2.SessionOutcome) -> None:
        start = self._open.get(outcome.id)
        if start is None:
            return
        if outcome.status_code != 0:
            self._deadlines.remove(outcome.id)
            del self._open[outcome.id]
            start.fail(_error(outcome))
        elif not start.acknowledged.done():
            self._deadlines.remove(outcome.id)
            start.acknowledged.set_result(None)
        elif outcome.saga.HasField("create_time"):  # else it is an acknowledgement that nobody waited for any more
            del self._open[outcome.id]
            start.ending.resolve(outcome.saga)


def _closed() -> Exception:
    return AmendsError("The client is closed.")


def _share(told: orchestrator_pb2.Share) -> Share | None:
    return (told.partitions, frozenset(told.owned)) if told.partitions > 0 else None


def _error(outcome: orchestrator_pb2.SessionOutcome) -> Exception:
    status = status_pb2.Status(code=outcome.status_code)
    with suppress(DecodeError):  # the code says enough to go on
        status.ParseFromString(outcome.status_details)
    code = _STATUS_CODES.get(outcome.status_code, grpc.StatusCode.UNKNOWN)
    return exception_of_status(code, status.message, status)
