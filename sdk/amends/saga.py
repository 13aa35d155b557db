"""A saga that was started: its result, its events, and how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar, assert_never, cast

from amends.connection import Connection
from amends.errors import Compensated, DeadlineExceeded, Failed, SagaError, Stuck
from amends.events import Event
from amends.feed import Feed
from amends.v1 import orchestrator_pb2
from amends.views import SagaStatus, SagaView

Out = TypeVar("Out")

# One call of a wait: long enough to be cheap, short enough to pass proxies that cut off what is idle for a minute.
WAIT_S = 30.0
# An orchestrator that does not wait, or is about to go, answers at once: then it is not asked all the time.
ASK_AGAIN_S = 0.1


class SagaHandle(Generic[Out]):
    """A saga that was started, by its id. Handles are made by `Client.start` and `Client.saga`."""

    def __init__(self, connection: Connection, saga_id: str, output_type: type[Out] | None) -> None:
        self._connection = connection
        self._id = saga_id
        self._output_type = output_type

    @property
    def id(self) -> str:
        """The id within the namespace."""
        return self._id

    @property
    def namespace(self) -> str:
        return self._connection.namespace

    async def status(self) -> SagaView:
        """The saga as it stands.

        :raises NotFound: if there is none of that id.
        """
        request = orchestrator_pb2.GetSagaRequest(namespace=self.namespace, saga_id=self._id)
        response = await self._connection.repeatable(self._connection.orchestrator.GetSaga, request)
        return SagaView.of(response.saga)

    async def wait(self) -> SagaView:
        """The saga once it has ended or is STUCK, however long that takes.

        :raises NotFound: if there is none of that id.
        :raises Unavailable: if the orchestrator is gone for longer than the client retries.
        """
        while True:
            view = await self._wait_once()
            if view.status.is_settled:
                return view
            await asyncio.sleep(ASK_AGAIN_S)

    async def result(self) -> Out:
        """What the saga resulted in, once it has ended.

        :raises Compensated: if it turned back, and all was undone.
        :raises Stuck: if it needs an operator; it may still end later.
        :raises Failed: if an operator gave it up.
        :raises PayloadError: if the result is not of the declared type.
        """
        view = await self.wait()
        match view.status:
            case SagaStatus.COMPLETED:
                return self._output(view)
            case SagaStatus.COMPENSATED:
                raise _ended(Compensated, view, f"was compensated: {view.cause}")
            case SagaStatus.STUCK:
                raise _ended(Stuck, view, f"needs an operator: {_blocked(view)}")
            case SagaStatus.FAILED:
                raise _ended(Failed, view, f"was given up by an operator, after: {view.cause}")
            case (
                SagaStatus.PENDING | SagaStatus.RUNNING | SagaStatus.COMPENSATING | SagaStatus.UNRECOGNISED
            ):  # wait() returns settled sagas only
                raise AssertionError(view.status)
            case _:
                assert_never(view.status)

    async def watch(self, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events after the one with the sequence `after`, each once and in order, until the saga has ended.

        A lost connection is made again, and the events go on where they were.

        :raises NotFound: if there is no saga of that id.
        :raises OutOfRange: if the events that are asked for are not kept any more.
        :raises Unavailable: if the orchestrator is gone for longer than the client retries.
        """
        feed = Feed(self._connection, self._id, after=after, status=self.status)
        async with aclosing(feed):
            while (event := await feed.next()) is not None:
                yield event

    async def cancel(self, reason: str) -> SagaView:
        """Turn the saga back. Its cause then says what turned it back, which may be something that came before.

        :raises FailedPrecondition: if the saga is completed, or past the point of no return.
        :raises NotFound: if there is none of that id.
        """
        request = orchestrator_pb2.CancelSagaRequest(namespace=self.namespace, saga_id=self._id, reason=reason)
        response = await self._connection.repeatable(self._connection.orchestrator.CancelSaga, request)
        return SagaView.of(response.saga)

    def __repr__(self) -> str:
        return f"<saga {self.namespace}/{self._id}>"

    async def _wait_once(self) -> SagaView:
        request = orchestrator_pb2.GetSagaRequest(namespace=self.namespace, saga_id=self._id, wait=True)
        try:
            response = await self._connection.repeatable(self._connection.orchestrator.GetSaga, request, WAIT_S)
        except DeadlineExceeded:
            return await self.status()
        return SagaView.of(response.saga)

    def _output(self, view: SagaView) -> Out:
        if self._output_type is not None:
            return view.output.read(self._output_type)
        if view.output:
            return cast("Out", view.output.read(object))
        return cast("Out", {step.id: step.output.read(object) for step in view.steps})


def _ended(kind: type[SagaError], view: SagaView, what: str) -> SagaError:
    return kind(f"The saga {view.id} {what}", view)


def _blocked(view: SagaView) -> str:
    if view.stuck is None:
        return "unknown"
    return f"{', '.join(view.stuck.steps)}: {view.stuck.error}"
