"""The events of a saga as one sequence without gap or double, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType

import grpc

from amends.client.connection import Connection, told_if_closed
from amends.client.events import Event
from amends.errors import DataLoss
from amends.statuses import exception_of
from amends.v1 import orchestrator_pb2
from amends.views import SagaView

_Stream = grpc.aio.UnaryStreamCall[orchestrator_pb2.WatchSagaRequest, orchestrator_pb2.WatchSagaResponse]


class Watch(AsyncGenerator[Event, None]):
    """The events of one saga, as users take them.

    A generator would be over when a wait for its next event is cancelled, and that looks like the end of the saga. This
    goes on where it was.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._turn = asyncio.Lock()
        self._over = False

    async def asend(self, value: None) -> Event:
        async with self._turn:
            event = None if self._over else await self._feed.next()
        if event is None:
            self._over = True
            raise StopAsyncIteration
        return event

    async def athrow(
        self, typ: type[BaseException] | BaseException, val: object = None, tb: TracebackType | None = None, /
    ) -> Event:
        await self.aclose()
        raise val if isinstance(val, BaseException) else typ

    async def aclose(self) -> None:
        self._over = True
        self._feed.leave()

    def __del__(self) -> None:
        self._feed.leave()  # a loop over it was broken off


class Feed:
    """The events of one saga after the sequence `after`, over as many streams as it takes."""

    def __init__(
        self, connection: Connection, saga_id: str, *, after: int, status: Callable[[], Awaitable[SagaView]]
    ) -> None:
        self._connection = connection
        self._saga_id = saga_id
        self._status = status
        self._last = after
        self._ended = False
        self._stream: _Stream | None = None

    async def next(self) -> Event | None:
        """The next event; None after the last one. After an error, and after a cancellation, it is the same one."""
        try:
            event = await self._connection.retrying(self._try_next, passes=self._passes)
        except BaseException:
            self.leave()
            raise
        if event is not None:
            self._last = event.sequence
            self._ended = event.kind.is_final
        return event

    def leave(self) -> None:
        """End the stream. Another one goes on after the last event that was given."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _passes(self, error: BaseException) -> bool:
        return isinstance(error, DataLoss) or self._connection.passes(error)

    async def _try_next(self) -> Event | None:
        try:
            return await self._read_new()
        except grpc.aio.AioRpcError as error:
            self.leave()
            if self._ended:
                return None
            raise exception_of(error) from None
        except DataLoss:
            self.leave()
            raise

    async def _read_new(self) -> Event | None:
        while (response := await self._read()) is not None:
            event = Event.of(response)
            if event.sequence == self._last + 1:
                return event
            if event.sequence > self._last:
                raise _lost(f"The events {self._last + 1} to {event.sequence - 1} were left out.")
        await self._at_end()
        return None

    async def _read(self) -> orchestrator_pb2.WatchSagaResponse | None:
        """The next message of the stream, which is opened if there is none; None at its end."""
        with told_if_closed():
            if self._stream is None:
                await self._connection.replicas.connected()
                request = orchestrator_pb2.WatchSagaRequest(
                    namespace=self._connection.namespace, saga_id=self._saga_id, after_sequence=self._last
                )
                self._stream = self._connection.orchestrator.WatchSaga(request)
            response: object = await self._stream.read()
        if isinstance(response, orchestrator_pb2.WatchSagaResponse):
            return response
        if response is grpc.aio.EOF:
            return None
        raise _lost("An event cannot be decoded.")  # grpc.aio gives None for such a one

    async def _at_end(self) -> None:
        """A stream ended well: that is only the end if the saga has no further events."""
        self.leave()
        if self._ended:
            return
        view = await self._status()
        if not view.status.is_final or view.sequence > self._last:
            raise _lost("The events ended before the saga did.")


def _lost(message: str) -> DataLoss:
    return DataLoss(message, code=grpc.StatusCode.DATA_LOSS)
