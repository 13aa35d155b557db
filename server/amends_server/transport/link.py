"""The way to one participant: a queue, a limit on the calls in flight, and a session or single calls to send them.

A call waits here until it can be sent: while it waits its time does not run, it can be withdrawn, and it moves when the
participant does. Whether it is still wanted is asked just before it is sent.

Single calls are made where somebody is there and no session comes about: the participant has none, or is overloaded, or
a proxy lets no streams through. Now and then a session is tried beside them, which they do not wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import grpc
import structlog

from amends.v1 import participant_pb2_grpc
from amends_server.clock import Clock
from amends_server.engine.commands import Verdict
from amends_server.transport.attempts import Attempt
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.session import BATCH_BYTES_MAX, Ending, LateTold, Session
from amends_server.transport.unary import UnaryCalls
from amends_server.transport.verdicts import MESSAGE_TOO_LARGE, verdict_of_status

LOOK_S = 0.25
"""How often calls that wait are looked through for those that are not to be sent any more: their sagas wait for it."""

PROBE_SOON_S = 5.0
"""After a session that did not come about, until the next is tried: a restart or a load may have passed by then."""

PROBE_LATER_S = 60.0
"""The same where the participant has no sessions, or a message was too large: it takes an upgrade to change that, and a
session that breaks costs other sagas an attempt."""

_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a connection that breaks, or a server that stops, says to a stream that nobody has looked at. There may be a new
connection by then: that no stream gets through is believed when it is said twice."""

log = structlog.stdlib.get_logger(__name__)


class Link:
    """The way to one participant. `late` is called with answers to attempts that were told to be over.

    `moved` is called with an attempt that was not begun where the participant was; False if nobody makes it anew.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        channel: grpc.aio.Channel,
        *,
        clock: Clock,
        payload_bytes_max: int,
        waiting: deque[Attempt],
        late: LateTold,
        moved: Callable[[Attempt], bool],
    ) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._late = late
        self._moved = moved
        self._channel = channel
        self._stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        self._unary = UnaryCalls(
            self._stub,
            participant=endpoint.name,
            clock=clock,
            payload_bytes_max=payload_bytes_max,
            over=self._over,
            lost=self._lost,
        )
        self._session: Session | None = None
        self._left: set[Session] = set()
        self._singly, self._probe_at = False, 0.0
        self._tries_again = False
        self._waiting = waiting
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._looking: asyncio.TimerHandle | None = None
        self._closed = self._retired = False
        self._fill()

    def send(self, attempt: Attempt) -> None:
        """Send an attempt as soon as it is its turn."""
        self._waiting.append(attempt)
        self._fill()

    def retire(self) -> deque[Attempt]:
        """Send nothing more; give away what was not sent."""
        self._retired = True
        return self.hand_over()

    def hand_over(self) -> deque[Attempt]:
        """Give away the attempts that were not sent."""
        waiting, self._waiting = self._waiting, deque[Attempt]()
        return waiting

    async def finish(self) -> None:
        """Wait for the calls in flight, then close."""
        try:
            await self._idle.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """End all calls; of what waits or is in flight nobody is told."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        await self._unary.close()
        for session in (*self._left, *([self._session] if self._session is not None else ())):
            await session.close()
        await self._channel.close()

    # What is sent, and when

    @property
    def waits(self) -> bool:
        """Tell whether there are attempts that were not sent yet."""
        return bool(self._waiting)

    def take(self, room_bytes: int) -> Attempt | None:
        """Give the next attempt to a session that writes it now, if one may be sent that has no more payload."""
        while (attempt := self._next()) is not None:
            if attempt.payload_bytes > BATCH_BYTES_MAX:
                self._unary.send(self._begin(attempt))
            elif attempt.payload_bytes > room_bytes:
                return None
            else:
                return self._begin(attempt)
        return None

    def _next(self) -> Attempt | None:
        """Return the attempt whose turn it is, and leave it in the queue; drop those that are not to be sent."""
        now = self._clock.now()
        while self._waiting and self._in_flight < self.endpoint.concurrency_max and not self._closed:
            obstacle = self._waiting[0].obstacle(now)
            if obstacle is None:
                return self._waiting[0]
            self._tell_later(self._waiting.popleft(), obstacle)
        return None

    def _begin(self, attempt: Attempt) -> Attempt:
        """Take the first attempt out of the queue, and let its time run."""
        self._waiting.popleft()
        self._in_flight += 1
        self._idle.clear()
        attempt.begin(self._clock.now())
        return attempt

    def _fill(self) -> None:
        """Have sent what can be sent."""
        if not self._waiting or self._closed:
            return
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look_through)
        if self._session is None and self._probe_at <= asyncio.get_running_loop().time():
            self._session = self._open_session()
        if self._session is not None and (self._session.begun or not self._singly):
            self._session.wake()
            return
        while (attempt := self._next()) is not None:
            self._unary.send(self._begin(attempt))

    def _look_through(self) -> None:
        """Let go of attempts that are not to be sent any more, though it is not their turn yet."""
        self._looking = None
        now, kept = self._clock.now(), deque[Attempt]()
        for attempt in self._waiting:
            if (obstacle := attempt.obstacle(now)) is None:
                kept.append(attempt)
            else:
                self._tell_later(attempt, obstacle)
        self._waiting = kept
        self._fill()

    def _tell_later(self, attempt: Attempt, verdict: Verdict) -> None:
        asyncio.get_running_loop().call_soon(attempt.tell, verdict)

    # How it ends

    def _open_session(self) -> Session:
        return Session(
            self._stub,
            participant=self.endpoint.name,
            payload_bytes_max=self._payload_bytes_max,
            source=self,
            over=self._over,
            returned=self._take_back,
            ended=self._session_ended,
            late=self._late,
        )

    def _session_ended(self, session: Session, ending: Ending) -> None:
        """Find another way for what waits."""
        self._left.discard(session)
        if self._session is session:
            self._session = None
        log.info("session_ended", participant=self.endpoint.name, code=ending.code.name, begun=ending.begun)
        connected = self._channel.get_state() is grpc.ChannelConnectivity.READY
        self._tries_again = not self._tries_again and connected and not ending.begun and ending.code in _PASSING
        if not self._tries_again:
            self._choose_way(ending, connected=connected)
        self._fill()

    def _choose_way(self, ending: Ending, *, connected: bool) -> None:
        """Go on with sessions or with single calls, or tell what waits that nobody is there."""
        pause_s = _pause_s(ending, connected=connected)
        self._singly = pause_s is not None
        self._probe_at = 0.0 if pause_s is None else asyncio.get_running_loop().time() + pause_s
        if not self._singly and not ending.fruitful:
            for attempt in self.hand_over():
                compensation, code = attempt.order.compensation, grpc.StatusCode.UNAVAILABLE
                attempt.tell(verdict_of_status(self.endpoint.name, code, ending.details, compensation=compensation))

    def _take_back(self, session: Session, attempt: Attempt) -> bool:
        """Have an attempt that the participant has not begun be sent over another session, once."""
        if attempt.returned or self._closed:
            return False
        attempt.returned = True
        if self._retired:
            if not self._moved(attempt):
                return False
            self._leave_room()
            return True
        if self._session is session:  # it ends when those that it has are over
            self._session = None
            self._left.add(session)
        self._waiting.appendleft(attempt)
        self._leave_room()
        self._fill()
        return True

    def _lost(self) -> None:
        """Nobody was there: who is there next time may serve sessions."""
        self._singly, self._probe_at = False, 0.0

    def _over(self, attempt: Attempt, verdict: Verdict) -> None:
        self._leave_room()
        attempt.tell(verdict)
        self._fill()

    def _leave_room(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


def _pause_s(ending: Ending, *, connected: bool) -> float | None:
    """Return how long to leave it at single calls; None if there is nothing that these could tell."""
    if ending.begun:
        return PROBE_LATER_S if MESSAGE_TOO_LARGE in ending.details else None  # single calls tell which one it is
    if ending.code in (*_PASSING, grpc.StatusCode.DEADLINE_EXCEEDED) and not connected:
        return None
    return PROBE_LATER_S if ending.code is grpc.StatusCode.UNIMPLEMENTED else PROBE_SOON_S
