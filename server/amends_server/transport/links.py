"""The ways to participants: one each, with a limit on the calls in flight.

What is above the limit waits in the link, so a participant that is slow or gone delays nobody else's sagas. A link
calls in a session, and falls back to single calls where the participant serves none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import grpc
import structlog

from amends.v1 import participant_pb2, participant_pb2_grpc
from amends_server.addresses import parse_address
from amends_server.clock import Clock
from amends_server.engine.commands import Unknown, Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.payload import Error
from amends_server.transport.attempts import Attempt, Told
from amends_server.transport.requests import Origin
from amends_server.transport.session import BATCH_BYTES_MAX, Ending, Session
from amends_server.transport.unary import UnaryCalls
from amends_server.transport.verdicts import MESSAGE_TOO_LARGE, verdict_of_status

OVERHEAD_BYTES = 64 * 1024
"""What a message may hold beside payloads: names, labels, keys, and the texts of the cause."""

PAYLOADS_MAX = 5
"""Payloads in one message at the most: Compensate carries input, output, arguments, the saga's input and an error's."""

MESSAGE_BYTES_MIN = 4 << 20
"""A batch of results may have this, even if payloads may not: what any gRPC client takes by default."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A participant and where it listens. `concurrency_max`: how many calls it takes at a time."""

    name: str
    address: str
    concurrency_max: int


def channel_options(payload_bytes_max: int) -> list[tuple[str, int]]:
    """Return options with which a dead peer is noticed in seconds, and one that is back is found at once."""
    message_bytes_max = max(MESSAGE_BYTES_MIN, PAYLOADS_MAX * payload_bytes_max + OVERHEAD_BYTES)
    return [
        ("grpc.keepalive_time_ms", 60_000),  # faster, and servers with the usual settings would end the connection
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # without it a stopped peer is noticed a minute later
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),  # the default is two minutes of failing after the peer is back
        ("grpc.enable_retries", 0),  # attempts are counted and recorded by us
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_receive_message_length", message_bytes_max),
    ]


class Transport:
    """All links. Meant for one event loop."""

    def __init__(self, clock: Clock, payload_bytes_max: int) -> None:
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._links: dict[str, _Link] = {}
        self._retired: set[asyncio.Task[None]] = set()

    def send(self, endpoint: Endpoint, order: CallOrder, origin: Origin, told: Told) -> None:
        """Send an attempt, or keep it until there is room; `told` is called later, with what it told.

        That an attempt took too long is told when its time is up. If its answer comes after all, `told` is called with
        that too. After `close` it may never be called: such attempts are lost, and the journal knows them by their
        intents.
        """
        self._link(endpoint).send(Attempt(order, origin, told))

    async def describe(self, endpoint: Endpoint, timeout_s: float) -> participant_pb2.DescribeResponse | None:
        """Ask a participant for its actions.

        :raises grpc.aio.AioRpcError: if it does not answer, or with UNIMPLEMENTED if it does not describe itself.
        """
        stub = self._link(endpoint).stub
        return await stub.Describe(participant_pb2.DescribeRequest(), timeout=timeout_s)

    async def close(self) -> None:
        """End all calls and channels."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def _link(self, endpoint: Endpoint) -> _Link:
        link = self._links.get(endpoint.name)
        if link is not None and link.endpoint == endpoint:
            return link
        waiting = self._retire(link) if link is not None else deque[Attempt]()
        link = self._links[endpoint.name] = _Link(endpoint, self._clock, self._payload_bytes_max, waiting)
        return link

    def _retire(self, link: _Link) -> deque[Attempt]:
        """Let a link to an old address finish its calls in flight; return those that it did not send."""
        waiting = link.hand_over()
        task = asyncio.create_task(link.finish(), name=f"finish link to {link.endpoint.address}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        return waiting


class _Link:
    """The way to one participant."""

    def __init__(self, endpoint: Endpoint, clock: Clock, payload_bytes_max: int, waiting: deque[Attempt]) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._channel = grpc.aio.insecure_channel(
            parse_address(endpoint.address).target, options=channel_options(payload_bytes_max)
        )
        self.stub = participant_pb2_grpc.ParticipantServiceStub(self._channel)
        self._unary = UnaryCalls(
            self.stub,
            participant=endpoint.name,
            clock=clock,
            payload_bytes_max=payload_bytes_max,
            over=self._over,
            lost=self._lost,
        )
        self._session: Session | None = None
        self._serves_sessions = True
        self._waiting = waiting
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._fill()

    def send(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)
        self._fill()

    def hand_over(self) -> deque[Attempt]:
        waiting, self._waiting = self._waiting, deque[Attempt]()
        return waiting

    async def finish(self) -> None:
        try:
            await self._idle.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        self._closed = True
        await self._unary.close()
        if self._session is not None:
            await self._session.close()
        await self._channel.close()

    def _fill(self) -> None:
        while self._waiting and self._in_flight < self.endpoint.concurrency_max and not self._closed:
            self._in_flight += 1
            self._idle.clear()
            self._begin(self._waiting.popleft())

    def _begin(self, attempt: Attempt) -> None:
        """Let an attempt's time run, and send it."""
        order, now = attempt.order, self._clock.now()
        timeout_us = order.timeout_us if order.deadline is None else min(order.timeout_us, order.deadline - now)
        attempt.expire_time = now + timeout_us
        self._send(attempt, timeout_us)

    def _send(self, attempt: Attempt, timeout_us: int) -> None:
        payload_bytes = attempt.payload_bytes()
        if timeout_us <= 0:
            error = Error("TIMEOUT", "The step's deadline passed before the call was sent.", self.endpoint.name)
            asyncio.get_running_loop().call_soon(self._over, attempt, Unknown(error))
        elif self._serves_sessions and payload_bytes <= BATCH_BYTES_MAX:
            if self._session is None:
                self._session = self._open_session()
            self._session.send(attempt, payload_bytes, timeout_us)
        else:
            self._unary.send(attempt)

    def _open_session(self) -> Session:
        return Session(
            self.stub,
            participant=self.endpoint.name,
            payload_bytes_max=self._payload_bytes_max,
            over=self._over,
            ended=self._session_ended,
        )

    def _session_ended(self, session: Session, ending: Ending, unsent: list[Attempt]) -> None:
        """Find another way for what was not sent, or tell that there is none now."""
        if self._session is session:
            self._session = None
        code, details = ending.code, ending.details
        log.info("session_ended", participant=self.endpoint.name, code=code.name, begun=ending.begun)
        if ending.begun:
            self._serves_sessions = MESSAGE_TOO_LARGE not in details  # single calls tell which one it is
        else:
            self._serves_sessions = code is grpc.StatusCode.UNAVAILABLE
        again = ending.fruitful or not self._serves_sessions
        now = self._clock.now()
        for attempt in unsent:
            if again:
                self._send(attempt, attempt.expire_time - now)
            else:
                unavailable, compensation = grpc.StatusCode.UNAVAILABLE, attempt.order.compensation
                verdict = verdict_of_status(self.endpoint.name, unavailable, details, compensation=compensation)
                self._over(attempt, verdict)

    def _lost(self) -> None:
        """Nobody was there: who is there next time may serve sessions."""
        self._serves_sessions = True

    def _over(self, attempt: Attempt, verdict: Verdict) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
        attempt.tell(verdict)
        self._fill()
