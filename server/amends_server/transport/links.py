"""The ways to participants: one each, so a participant that is slow or gone delays nobody else's sagas."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import grpc

from amends.v1 import participant_pb2, participant_pb2_grpc
from amends_server.addresses import parse_address
from amends_server.clock import Clock
from amends_server.engine.commands import Verdict
from amends_server.engine.due import CallOrder
from amends_server.errors import AddressNotAllowed
from amends_server.transport.attempts import Attempt, Obstacle, Told, nothing
from amends_server.transport.endpoint import Endpoint, channel_options
from amends_server.transport.link import Link
from amends_server.transport.requests import Origin
from amends_server.transport.session import LateTold


class Transport:
    """All links. Meant for one event loop.

    `allows` says which addresses may be dialled; no connection is made to any other (I45). `late` is called with
    answers to attempts that were told to be over.
    """

    def __init__(self, clock: Clock, payload_bytes_max: int, *, allows: Callable[[str], bool], late: LateTold) -> None:
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._allows = allows
        self._late = late
        self._links: dict[str, Link] = {}
        self._retired: set[asyncio.Task[None]] = set()

    def send(
        self, endpoint: Endpoint, order: CallOrder, origin: Origin, told: Told, in_its_way: Obstacle = nothing
    ) -> None:
        """Send an attempt, or keep it until there is room; `told` is called later, with what it told.

        `in_its_way` is asked just before it is sent, and now and then before; what it answers is told instead.
        The attempt's time runs from when it is sent. That it took too long is told when its time is up; an answer that
        comes after that goes to `late`. After `close`, `told` may never be called: such attempts are lost, and the
        journal knows them by their intents.

        :raises AddressNotAllowed: if the address may not be dialled.
        """
        self._link(endpoint).send(Attempt(order, origin, told, in_its_way))

    async def describe(self, endpoint: Endpoint, timeout_s: float) -> participant_pb2.DescribeResponse | None:
        """Ask a participant for its actions, over a connection of its own: calls to that name stay where they are.

        :raises AddressNotAllowed: if the address may not be dialled.
        :raises grpc.aio.AioRpcError: if it does not answer, or with UNIMPLEMENTED if it does not describe itself.
        """
        async with self._open(endpoint.address) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            return await stub.Describe(participant_pb2.DescribeRequest(), timeout=timeout_s)

    def forget(self, name: str, verdict: Verdict) -> None:
        """Let calls in flight to a participant finish, and tell those that were not sent a verdict."""
        link = self._links.pop(name, None)
        if link is not None:
            for attempt in self._retire(link):
                attempt.tell(verdict)

    async def close(self) -> None:
        """End all calls and channels."""
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def _open(self, address: str) -> grpc.aio.Channel:
        if not self._allows(address):
            raise AddressNotAllowed(address)
        return grpc.aio.insecure_channel(
            parse_address(address).target, options=channel_options(self._payload_bytes_max)
        )

    def _link(self, endpoint: Endpoint) -> Link:
        old = self._links.get(endpoint.name)
        if old is not None and old.endpoint == endpoint:
            return old
        channel = self._open(endpoint.address)
        link = self._links[endpoint.name] = Link(
            endpoint,
            channel,
            clock=self._clock,
            payload_bytes_max=self._payload_bytes_max,
            waiting=self._retire(old) if old is not None else deque[Attempt](),
            late=self._late,
            moved=self._send_again,
        )
        return link

    def _send_again(self, attempt: Attempt) -> bool:
        """Send an attempt to where its participant is now, if it is anywhere."""
        link = self._links.get(attempt.order.node.step.participant)
        if link is not None:
            link.send(attempt)
        return link is not None

    def _retire(self, link: Link) -> deque[Attempt]:
        """Let a link to an old address finish its calls in flight; return those that it did not send."""
        waiting = link.retire()
        task = asyncio.create_task(link.finish(), name=f"finish link to {link.endpoint.address}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        return waiting
