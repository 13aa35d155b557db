"""Calls participants over gRPC, one unary RPC an attempt, and says of each what it told.

Each participant has a link of its own: a channel, and a limit on the calls in flight. What is above the limit waits in
the link, so a participant that is slow or gone delays nobody else's sagas.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc
import structlog

from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2
from amends_server.addresses import parse_address
from amends_server.clock import Clock
from amends_server.engine.commands import Unknown, Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US
from amends_server.transport.requests import Origin, compensate_request, execute_request
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

OVERHEAD_BYTES = 64 * 1024
"""What a message may hold beside payloads: names, labels, keys, and the texts of the cause."""

PAYLOADS_MAX = 5
"""Payloads in one message at the most: Compensate carries input, output, arguments, the saga's input and an error's."""

Told = Callable[[Verdict], None]

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A participant and where it listens. `concurrency_max`: how many calls it takes at a time."""

    name: str
    address: str
    concurrency_max: int


def channel_options(payload_bytes_max: int) -> list[tuple[str, int]]:
    """Return options with which a dead peer is noticed in seconds, and one that is back is found at once."""
    message_bytes_max = PAYLOADS_MAX * payload_bytes_max + OVERHEAD_BYTES
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


class _Waiting(NamedTuple):
    order: CallOrder
    origin: Origin
    told: Told


class Transport:
    """All links. Meant for one event loop."""

    def __init__(self, clock: Clock, payload_bytes_max: int) -> None:
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._links: dict[str, _Link] = {}
        self._retired: set[asyncio.Task[None]] = set()

    def send(self, endpoint: Endpoint, order: CallOrder, origin: Origin, told: Told) -> None:
        """Send an attempt, or keep it until there is room; `told` is called once, later, with what it told.

        After `close` it may never be called: such attempts are lost, and the journal knows them by their intents.
        """
        self._link(endpoint).send(order, origin, told)

    async def describe(self, endpoint: Endpoint, timeout_s: float) -> participant_pb2.DescribeResponse | None:
        """Ask a participant for its actions.

        :raises grpc.aio.AioRpcError: if it does not answer, or with UNIMPLEMENTED if it does not describe itself.
        """
        stub = self._link(endpoint).stub
        return await stub.Describe(participant_pb2.DescribeRequest(), timeout=timeout_s)

    async def close(self) -> None:
        """End all calls and channels."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links), *self._retired)

    def _link(self, endpoint: Endpoint) -> _Link:
        link = self._links.get(endpoint.name)
        if link is not None and link.endpoint == endpoint:
            return link
        waiting = self._retire(link) if link is not None else deque[_Waiting]()
        link = self._links[endpoint.name] = _Link(endpoint, self._clock, self._payload_bytes_max, waiting)
        return link

    def _retire(self, link: _Link) -> deque[_Waiting]:
        """Let a link to an old address finish its calls in flight; return those that it did not send."""
        waiting = link.hand_over()
        task = asyncio.create_task(link.finish(), name=f"finish link to {link.endpoint.address}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        return waiting


class _Link:
    """The way to one participant."""

    def __init__(self, endpoint: Endpoint, clock: Clock, payload_bytes_max: int, waiting: deque[_Waiting]) -> None:
        self.endpoint = endpoint
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._channel = grpc.aio.insecure_channel(
            parse_address(endpoint.address).target, options=channel_options(payload_bytes_max)
        )
        self.stub = participant_pb2_grpc.ParticipantServiceStub(self._channel)
        self._waiting: deque[_Waiting] = waiting
        self._calls: set[asyncio.Task[None]] = set()
        self._fill()

    def send(self, order: CallOrder, origin: Origin, told: Told) -> None:
        self._waiting.append(_Waiting(order, origin, told))
        self._fill()

    def hand_over(self) -> deque[_Waiting]:
        waiting, self._waiting = self._waiting, deque[_Waiting]()
        return waiting

    async def finish(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls)
        await self._channel.close()

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        await self.finish()

    def _fill(self) -> None:
        while self._waiting and len(self._calls) < self.endpoint.concurrency_max:
            following = self._waiting.popleft()
            call = asyncio.create_task(self._call(following.order, following.origin, following.told))
            self._calls.add(call)
            call.add_done_callback(self._over)

    def _over(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (bug := call.exception()) is not None:
            log.error("call_broke", participant=self.endpoint.name, error=type(bug).__name__)
        self._fill()

    async def _call(self, order: CallOrder, origin: Origin, told: Told) -> None:
        now = self._clock.now()
        timeout_us = order.timeout_us if order.deadline is None else min(order.timeout_us, order.deadline - now)
        if timeout_us <= 0:
            told(Unknown(Error("TIMEOUT", "The step's deadline passed before the call was sent.", self.endpoint.name)))
            return
        told(await self._ask(order, origin, now + timeout_us, timeout_us / SECOND_US))

    async def _ask(self, order: CallOrder, origin: Origin, expire_time: int, timeout_s: float) -> Verdict:
        traceparent = origin.started.traceparent
        metadata = (("traceparent", traceparent),) if traceparent else None
        name = self.endpoint.name
        try:
            if order.compensation:
                undo = compensate_request(order, origin, expire_time)
                reply = _reply(await self.stub.Compensate(undo, timeout=timeout_s, metadata=metadata))
            else:
                do = execute_request(order, origin, expire_time)
                reply = _reply(await self.stub.Execute(do, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            return verdict_of_status(name, error.code(), error.details() or "", compensation=order.compensation)
        except grpc.aio.UsageError as error:  # the channel was closed under the call
            return Unknown(Error("CANCELLED", f"The call was ended: {error}", name))
        return verdict_of_reply(name, reply, self._payload_bytes_max)


def _reply(
    response: participant_pb2.ExecuteResponse | participant_pb2.CompensateResponse | None,
) -> saga_pb2.Reply | None:
    """Return what a response holds. One that cannot be decoded comes as None with OK, whatever the stub's type says."""
    return None if response is None else response.reply
