"""Sessions with clients: starts in batches one way, acknowledgements and ends of sagas in batches the other.

A start costs no task: it is checked and begun as it comes, and what becomes of it is queued by callbacks. Only what has
to look something up first (a definition that is not in memory, a saga of that name) takes the way of StartSaga.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc

from amends.v1 import orchestrator_pb2 as pb
from amends_server.engine.state import State
from amends_server.engine.value import dataclass
from amends_server.errors import Overloaded, RequestUnreadable, ServiceError, ShuttingDown
from amends_server.hub import Hub, Settled
from amends_server.runner.domain import Domain
from amends_server.runner.reader import View
from amends_server.service.callers import principal
from amends_server.service.fields import traceparent
from amends_server.service.outcomes import Acknowledged, Outcomes, Refused
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


class _Taken(NamedTuple):
    """A start that was taken, and is not answered yet."""

    start_id: int
    request: pb.StartSagaRequest
    size_bytes: int


class _Wait(NamedTuple):
    """A saga whose end is to be told, and whom the hub calls then."""

    start_id: int
    key: SagaKey
    settled: Settled


class Session:
    """One stream. `begin` starts a saga at once if that is possible, `start` in any case.

    `look` reads a saga that this process runs, or raises why it will not.
    """

    def __init__(
        self,
        context: Context,
        *,
        starter: Starter,
        begin: Callable[[pb.StartSagaRequest, Starter, Told], bool],
        start: Callable[[pb.StartSagaRequest, Starter], Awaitable[tuple[View, bool]]],
        look: Callable[[SagaKey], Awaitable[View]],
        domain: Domain,
        hub: Hub,
    ) -> None:
        self._context = context
        self._starter = starter
        self._begin = begin
        self._start = start
        self._look = look
        self._domain = domain
        self._share: Share | None = None
        self._hub = hub
        self._tasks = Tasks()
        self._outcomes = Outcomes()
        self._waits: OrderedDict[int, _Wait] = OrderedDict()
        self._last_wait = 0
        self._unacknowledged = 0
        self._unacknowledged_bytes = 0
        self._room = asyncio.Event()
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
            for waiting in self._waits.values():
                self._hub.leave(waiting.key, waiting.settled)
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
                await self._make_room()
        except ServiceError as refusal:
            self._refusal = refusal
        finally:
            self.drain()

    async def _make_room(self) -> None:
        """Let large starts become durable before more are read: the client waits, and memory stays bounded."""
        while self._unacknowledged_bytes > STARTS_BYTES_MAX:
            self._room.clear()
            await self._room.wait()

    def _take(self, start_id: int, request: pb.StartSagaRequest) -> None:
        self._start_credits -= 1
        if self._start_credits < -STARTS_MAX:  # each refusal is kept until the client takes it
            raise Overloaded("starts under way", STARTS_MAX)
        taken = _Taken(start_id, request, request.ByteSize())
        self._unacknowledged += 1
        self._unacknowledged_bytes += taken.size_bytes
        try:
            if self._ending:
                raise ShuttingDown()
            if self._start_credits < 0:
                raise Overloaded("starts under way", STARTS_MAX)
            if not self._begin(request, self._starter, partial(self._told, taken)):
                self._tasks.hold(self._start_slowly(taken))
        except Exception as error:
            self._refuse(taken, error)

    async def _start_slowly(self, taken: _Taken) -> None:
        try:
            view, _ = await self._start(taken.request, self._starter)
        except Exception as error:
            self._refuse(taken, error)
            return
        wait = self._acknowledge(taken, view.key, view.birth, view.state)
        if wait is not None:
            await self._look_again(wait)

    def _told(self, taken: _Taken, key: SagaKey, birth: Birth, outcome: State | Exception) -> None:
        if isinstance(outcome, AlreadyExists | Undefined):  # it may be the same saga, or be defined anew: look it up
            self._tasks.hold(self._start_slowly(taken))
        elif isinstance(outcome, Exception):
            self._refuse(taken, outcome)
        else:
            self._acknowledge(taken, key, birth, outcome)

    def _acknowledge(self, taken: _Taken, key: SagaKey, birth: Birth, state: State) -> int | None:
        """Tell that a start is durable; return the number of the wait for its end, if there is one."""
        self._answered(taken)
        start_id = taken.start_id
        self._outcomes.add(Acknowledged(start_id, key, state.status, state.sequence))
        self._wake.set()
        if not taken.request.wait:
            return None
        if state.settled:
            self._outcomes.end(start_id, View(key, birth, state))
        elif not self._domain.owns(key):  # another orchestrator runs it, and nobody here is told of its end
            self._outcomes.ask(start_id, key)
        else:
            return self._wait(start_id, key, birth)
        return None

    def _wait(self, start_id: int, key: SagaKey, birth: Birth) -> int:
        self._last_wait += 1
        wait = self._last_wait  # the client's ids may come twice

        def settled(state: State | None) -> None:
            if self._waits.pop(wait, None) is None:  # it was said before, or the session is over
                return
            if state is None:
                self._outcomes.ask(start_id, key)
            else:
                self._outcomes.end(start_id, View(key, birth, state))
            self._wake.set()

        if len(self._waits) >= WAITS_MAX:
            _, oldest = self._waits.popitem(last=False)
            self._hub.leave(oldest.key, oldest.settled)
            self._outcomes.ask(oldest.start_id, oldest.key)
        self._waits[wait] = _Wait(start_id, key, settled)
        self._hub.wait(key, settled)
        return wait

    async def _look_again(self, wait: int) -> None:
        """See whether a saga settled after it was read and before it was waited for: of that nobody tells any more."""
        waiting = self._waits[wait]
        try:
            state = (await self._look(waiting.key)).state
        except Exception as error:  # the client is told why when it asks
            report("Session", waiting.key, error)
            state = None
        if state is None or state.settled:
            self._hub.leave(waiting.key, waiting.settled)
            waiting.settled(state)

    def _answered(self, taken: _Taken) -> None:
        self._unacknowledged -= 1
        full = self._unacknowledged_bytes > STARTS_BYTES_MAX
        self._unacknowledged_bytes -= taken.size_bytes
        if full and self._unacknowledged_bytes <= STARTS_BYTES_MAX:
            self._room.set()

    def _refuse(self, taken: _Taken, error: Exception) -> None:
        self._answered(taken)
        status = to_status(error, report("Session", taken.request, error))
        self._outcomes.add(Refused(taken.start_id, status, end=False))
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
        answered = self._outcomes.write(response, self._result_credits)
        self._result_credits -= len(response.outcomes)
        self._start_credits_owed += answered
        self._start_credits += answered
