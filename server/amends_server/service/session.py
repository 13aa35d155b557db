"""Sessions with clients: starts in batches one way, acknowledgements and ends of sagas in batches the other.

A start costs no task: it is checked and begun as it comes, and what becomes of it is queued by callbacks. Only what has
to look something up first (a definition that is not in memory, a saga of that name) takes the way of StartSaga.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc
from google.rpc import status_pb2

from amends.v1 import orchestrator_pb2 as pb
from amends_server.convert.enums import SAGA_STATUS_TO_WIRE
from amends_server.convert.saga import result_to_wire
from amends_server.engine.state import State
from amends_server.engine.value import dataclass
from amends_server.errors import NotWaitedFor, Overloaded, RequestUnreadable, ServiceError, ShuttingDown
from amends_server.hub import Hub, Settled
from amends_server.runner.domain import Domain
from amends_server.runner.reader import View
from amends_server.service.callers import principal
from amends_server.service.fields import traceparent
from amends_server.status import report, to_status
from amends_server.store.leases import Share
from amends_server.store.protocol import AlreadyExists, Birth, SagaKey, Undefined
from amends_server.tasks import Tasks

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

STARTS_MAX = 1_024
"""Starts of one session that are not acknowledged yet: more than one transaction takes at a time."""

WAITS_MAX = 10_000
"""Ends that one session waits for: as many as there may be sagas in memory. Of the oldest, clients have to ask."""

STARTS_BYTES_MAX = 32 << 20
"""Of starts that are not acknowledged yet: no more is read from the stream until they are."""

ENDS_MAX = 4_096
"""Ends kept for a client that does not take them, as many as ours gives credits for. Of others it has to ask."""

BATCH_BYTES_MAX = 1 << 20
"""Of outcomes in one message: none waits long for the bytes of others."""

OUTCOME_BYTES_MAX = 4 << 20
"""Of one saga in a session; a larger one could break the stream for all others, so clients have to ask for it."""

Told = Callable[[SagaKey, Birth, State | Exception], None]
"""Called with what became of a start."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Who starts a saga, and in which W3C trace context."""

    principal: str
    traceparent: str

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return who makes a call."""
        return cls(principal(context), traceparent(context))


class _Outcome(NamedTuple):
    """What is to be told of a start. `whole`: with steps and data."""

    start_id: int
    what: View | status_pb2.Status
    whole: bool = False


class Session:
    """One stream. `begin` starts a saga at once if that is possible, `start` in any case."""

    def __init__(
        self,
        context: Context,
        *,
        starter: Starter,
        begin: Callable[[pb.StartSagaRequest, Starter, Told], bool],
        start: Callable[[pb.StartSagaRequest, Starter], Awaitable[tuple[View, bool]]],
        domain: Domain,
        hub: Hub,
    ) -> None:
        self._context = context
        self._starter = starter
        self._begin = begin
        self._start = start
        self._domain = domain
        self._share: Share | None = None
        self._hub = hub
        self._tasks = Tasks()
        self._outcomes: deque[_Outcome] = deque()
        self._waits: OrderedDict[int, tuple[int, SagaKey, Settled]] = OrderedDict()
        self._last_wait = 0
        self._unacknowledged = 0
        self._unacknowledged_bytes = 0
        self._acknowledged = asyncio.Event()
        self._start_credits = STARTS_MAX
        self._start_credits_owed = STARTS_MAX
        self._result_credits = 0
        self._ending = False
        self._refusal: ServiceError | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client goes, or, once `drain` was called, until all starts are answered.

        :raises ServiceError: if the client sends what cannot be read, or far more than it was allowed to.
        """
        reader = asyncio.create_task(self._read())
        try:
            while (response := await self._next()) is not None:
                await self._context.write(response)
            if self._refusal is not None:
                raise self._refusal
        finally:
            reader.cancel()
            for _, key, settled in self._waits.values():
                self._hub.leave(key, settled)
            self._waits.clear()
            await self._tasks.close()

    def stir(self) -> None:
        """Say at once which sagas this process runs, if that has changed."""
        self._wake.set()

    def drain(self) -> None:
        """Take no more starts, and end when those that came are answered."""
        self._ending = True
        self._wake.set()

    # In

    async def _read(self) -> None:
        try:
            while (request := await self._context.read()) is not grpc.aio.EOF:
                if not isinstance(request, pb.OrchestratorServiceSessionRequest):
                    raise RequestUnreadable()
                self._result_credits += request.result_credits
                for start in request.starts:
                    self._take(start.id, start.start)
                self._wake.set()
                await self._make_room(request)
        except ServiceError as refusal:
            self._refusal = refusal
        finally:
            self.drain()

    async def _make_room(self, request: pb.OrchestratorServiceSessionRequest) -> None:
        """Let large starts become durable before more are read: the client waits, and memory stays bounded."""
        self._unacknowledged_bytes += request.ByteSize()
        while self._unacknowledged and self._unacknowledged_bytes > STARTS_BYTES_MAX:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def _take(self, start_id: int, request: pb.StartSagaRequest) -> None:
        self._start_credits -= 1
        if self._start_credits < -STARTS_MAX:  # each refusal is kept until the client takes it
            raise Overloaded("starts under way", STARTS_MAX)
        self._unacknowledged += 1
        try:
            if self._ending:
                raise ShuttingDown()
            if self._start_credits < 0:
                raise Overloaded("starts under way", STARTS_MAX)
            if not self._begin(request, self._starter, partial(self._told, start_id, request)):
                self._tasks.hold(self._start_slowly(start_id, request))
        except Exception as error:
            self._refuse(start_id, request, error)

    async def _start_slowly(self, start_id: int, request: pb.StartSagaRequest) -> None:
        try:
            view, _ = await self._start(request, self._starter)
        except Exception as error:
            self._refuse(start_id, request, error)
        else:
            self._acknowledge(start_id, request.wait, view)

    def _told(
        self, start_id: int, request: pb.StartSagaRequest, key: SagaKey, birth: Birth, outcome: State | Exception
    ) -> None:
        if isinstance(outcome, AlreadyExists | Undefined):  # it may be the same saga, or be defined anew: look it up
            self._tasks.hold(self._start_slowly(start_id, request))
        elif isinstance(outcome, Exception):
            self._refuse(start_id, request, outcome)
        else:
            self._acknowledge(start_id, request.wait, View(key, birth, outcome))

    def _acknowledge(self, start_id: int, wait: bool, view: View) -> None:
        self._answered()
        self._tell(_Outcome(start_id, view))
        if wait and view.state.settled:
            self._tell(_Outcome(start_id, view, whole=True))
        elif wait and not self._domain.owns(
            view.key
        ):  # another orchestrator runs it, and nobody here is told of its end
            self._tell(_Outcome(start_id, _not_waited_for(view.key), whole=True))
        elif wait:
            self._wait(start_id, view.key, view.birth)

    def _wait(self, start_id: int, key: SagaKey, birth: Birth) -> None:
        self._last_wait += 1
        wait = self._last_wait  # the client's ids may come twice

        def settled(state: State | None) -> None:
            del self._waits[wait]
            if state is None or len(self._outcomes) >= ENDS_MAX:
                self._tell(_Outcome(start_id, _not_waited_for(key), whole=True))
            else:
                self._tell(_Outcome(start_id, View(key, birth, state), whole=True))

        if len(self._waits) >= WAITS_MAX:
            _, (oldest, its_key, its_settled) = self._waits.popitem(last=False)
            self._hub.leave(its_key, its_settled)
            self._tell(_Outcome(oldest, _not_waited_for(its_key), whole=True))
        self._waits[wait] = (start_id, key, settled)
        self._hub.wait(key, settled)

    def _answered(self) -> None:
        self._unacknowledged -= 1
        if not self._unacknowledged:
            self._unacknowledged_bytes = 0
            self._acknowledged.set()

    def _refuse(self, start_id: int, request: pb.StartSagaRequest, error: Exception) -> None:
        self._answered()
        self._tell(_Outcome(start_id, to_status(error, report("Session", request, error))))

    def _tell(self, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        self._wake.set()

    # Out

    async def _next(self) -> pb.OrchestratorServiceSessionResponse | None:
        """The next message, as soon as there is something to say; None at the end."""
        while True:
            self._wake.clear()
            response = pb.OrchestratorServiceSessionResponse()
            self._add_outcomes(response)
            if self._refusal is not None:
                return None
            self._add_share(response)
            if response.outcomes or self._start_credits_owed >= STARTS_MAX or response.HasField("share"):
                response.start_credits, self._start_credits_owed = self._start_credits_owed, 0
                return response
            if self._ending and not self._unacknowledged and not self._outcomes:
                return None
            await self._wake.wait()

    def _add_share(self, response: pb.OrchestratorServiceSessionResponse) -> None:
        """Say which sagas this process runs, if that has changed."""
        share = self._domain.share
        if share is not None and share != self._share:
            self._share = share
            response.share.partitions = share.partitions
            response.share.owned.extend(sorted(share.owned))

    def _add_outcomes(self, response: pb.OrchestratorServiceSessionResponse) -> None:
        size = 0
        while self._outcomes and self._result_credits > 0 and size < BATCH_BYTES_MAX:
            outcome = self._outcomes.popleft()
            self._result_credits -= 1
            size += _write(response.outcomes.add(), outcome)
            if not outcome.whole:
                self._start_credits_owed += 1
                self._start_credits += 1


def _write(to: pb.SessionOutcome, outcome: _Outcome) -> int:
    """Write an outcome, and return its size."""
    to.id = outcome.start_id
    what = outcome.what
    if isinstance(what, status_pb2.Status):
        _write_refusal(to, what)
    elif outcome.whole:
        result_to_wire(what.state, what.birth.definition_version, to.saga)
        if to.ByteSize() > OUTCOME_BYTES_MAX:
            to.ClearField("saga")
            _write_refusal(to, _not_waited_for(what.key))
    else:
        to.saga.namespace, to.saga.saga_id = what.key.namespace, what.key.saga_id
        to.saga.status, to.saga.sequence = SAGA_STATUS_TO_WIRE[what.state.status], what.state.sequence
    return to.ByteSize()


def _write_refusal(to: pb.SessionOutcome, status: status_pb2.Status) -> None:
    to.status_code = status.code
    to.status_details = status.SerializeToString()


def _not_waited_for(key: SagaKey) -> status_pb2.Status:
    return to_status(NotWaitedFor(key.namespace, key.saga_id))
