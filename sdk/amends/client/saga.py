"""A saga that was started: its result, its events, and how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar, assert_never, cast

from amends.client._starts import Ending
from amends.client.connection import Connection
from amends.client.events import Event
from amends.client.feed import Feed, Watch
from amends.errors import Compensated, DeadlineExceeded, Failed, SagaError, Stuck
from amends.payloads import decode
from amends.v1 import orchestrator_pb2, saga_pb2
from amends.views import SagaStatus, SagaView

Out = TypeVar("Out")

# One call of a wait: long enough to be cheap, short enough to pass proxies that cut off what is idle for a minute.
WAIT_S = 30.0
# An orchestrator that does not wait, or is about to go, answers at once: then it is not asked all the time.
ASK_AGAIN_S = 0.1

_FINAL = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED)
_SETTLED = (*_FINAL, saga_pb2.SAGA_STATUS_STUCK)


class SagaHandle(Generic[Out]):
    """A saga that was started, by its id. Handles are made by `Client.start` and `Client.saga`."""

    def __init__(
        self, connection: Connection, saga_id: str, output_type: type[Out] | None, ending: Ending | None = None
    ) -> None:
        self._connection = connection
        self._id = saga_id
        self._output_type = output_type
        self._ending = ending

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
        saga = await self._settled()
        if self._ending is not None and saga is self._ending.saga and not saga.steps:
            return await self.status()  # a session may have reported the output alone
        return SagaView.of(saga)

    async def result(self) -> Out:
        """What the saga resulted in, once it has ended.

        :raises Compensated: if it turned back, and all was undone.
        :raises Stuck: if it needs an operator; it may still end later.
        :raises Failed: if an operator gave it up.
        :raises PayloadError: if the result is not of the declared type.
        """
        saga = await self._settled()
        if saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
            if self._output_type is not None:
                return decode(saga.output, self._output_type)
            if saga.HasField("output"):
                return cast("Out", decode(saga.output, object))
        view = SagaView.of(saga)
        match view.status:
            case SagaStatus.COMPLETED:
                return cast("Out", {step.id: step.output.read(object) for step in view.steps})
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

    def watch(self, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events after the one with the sequence `after`, each once and in order, until the saga has ended.

        A lost connection is made again, and the events go on where they were; so they do after a wait for the next one
        that was cancelled.

        :raises NotFound: if there is no saga of that id.
        :raises OutOfRange: if the events that are asked for are not kept any more.
        :raises Unavailable: if the orchestrator is gone for longer than the client retries.
        """
        return Watch(Feed(self._connection, self._id, after=after, status=self.status))

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

    async def _settled(self) -> saga_pb2.Saga:
        """The saga once it is final or STUCK: as the session of its start reports it, or else asked for by its id."""
        ending = self._ending
        if ending is not None and not ending.lost:
            pending = ending.saga is None
            saga = await ending.wait() if pending else ending.saga
            if saga is not None and (pending or saga.status in _FINAL):  # one that was STUCK before may have gone on
                return saga
        while True:
            saga = await self._connection.retrying(self._ask)
            if saga.status in _SETTLED:
                return saga
            await asyncio.sleep(ASK_AGAIN_S)

    async def _ask(self) -> saga_pb2.Saga:
        """The saga when it has settled, or when one call has lasted long enough."""
        get = self._connection.orchestrator.GetSaga
        request = orchestrator_pb2.GetSagaRequest(namespace=self.namespace, saga_id=self._id, wait=True)
        try:
            return (await self._connection.once(get, request, WAIT_S)).saga
        except DeadlineExceeded:
            request.wait = False
            return (await self._connection.once(get, request)).saga


def _ended(kind: type[SagaError], view: SagaView, what: str) -> SagaError:
    return kind(f"The saga {view.id} {what}", view)


def _blocked(view: SagaView) -> str:
    if view.stuck is None:
        return "unknown"
    return f"{', '.join(view.stuck.steps)}: {view.stuck.error}"
