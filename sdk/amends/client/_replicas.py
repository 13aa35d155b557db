"""The orchestrators at the addresses that a client was given: which of them a call goes to.

Any of them answers any call, so calls take turns; one that does not answer rests for a while. gRPC's own lists of
addresses are not used: they know no host names, and would not say which orchestrator a stream of starts leads to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc

from amends._addresses import addresses, proxy_options
from amends.client._starts import Starts
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc

REST_S = 3.0  # of one that did not answer: it is tried again soon, and costs few calls that go elsewhere then
CONNECT_S = 3.0  # after that a connection is not waited for, though no address has refused it
LOOK_S = 0.01  # until it is looked again whether there is a connection: nobody notices that

_DOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # A stopped peer would be noticed only after a minute by keepalive alone: the timeout of the ping counts too.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # By default a channel goes on failing for seconds after its peer is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A saga comes with the inputs and outputs of all steps; how large these may be is the orchestrator's to say.
    ("grpc.max_receive_message_length", -1),
    # Two clients of a process that share a connection would also share its failures.
    ("grpc.use_local_subchannel_pool", 1),
)


class Replica:
    """One orchestrator, and the session of starts there."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=[*CHANNEL_OPTIONS, *proxy_options(address)])
        self.starts = Starts(orchestrator_pb2_grpc.OrchestratorServiceStub(self.channel), timeout_s)
        self._rests_until = 0.0

    def answered(self, code: grpc.StatusCode) -> None:
        """Take note of how a call there ended."""
        self._rests_until = asyncio.get_running_loop().time() + REST_S if code in _DOWN else 0.0

    @property
    def rests(self) -> bool:
        """Whether it did not answer a short time ago."""
        return asyncio.get_running_loop().time() < self._rests_until

    def connectivity(self) -> grpc.ChannelConnectivity:
        """How the connection stands; one that is lost is made again, whether it is needed now or not."""
        return self.channel.get_state(try_to_connect=True)

    async def close(self) -> None:
        await self.starts.close()
        await self.channel.close()


class Replicas:
    """All of them. `channel` is for stubs: each call over it goes to one that is fit for it."""

    def __init__(self, target: str, timeout_s: float) -> None:
        self._all = [Replica(address, timeout_s) for address in addresses(target)]
        random.shuffle(self._all)  # so that not all clients begin with the same one
        # A stub needs no more of a channel than to make callables for its methods, and they no more than to be called.
        self.channel = cast("grpc.aio.Channel", self._all[0].channel if len(self._all) == 1 else _Spread(self))

    def __len__(self) -> int:
        return len(self._all)

    def at_hand(self) -> Replica | None:
        """The next one that is connected and does not rest; None if there is none."""
        return self._all[0] if len(self._all) == 1 else self._in_turn(self._connected())

    async def chosen(self) -> Replica:
        """The next one that is fit, when one is connected, or none can be."""
        await self.connected()
        return self.first()

    def first(self) -> Replica:
        """The next one that is fit, or else whose turn it is."""
        fit = self._connected() or next((each for each in self._all if not each.rests), self._all[0])
        return self._in_turn(fit) or fit

    async def connected(self) -> None:
        """Wait until one is connected and does not rest, or none can be."""
        loop = asyncio.get_running_loop()
        end = loop.time() + CONNECT_S
        while len(self._all) > 1 and loop.time() < end:
            if self._connected() is not None or not self._some_may_come():
                return
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        for each in self._all:
            await each.close()

    def _connected(self) -> Replica | None:
        ready = [each for each in self._all if each.connectivity() is grpc.ChannelConnectivity.READY]
        fit = [each for each in ready if not each.rests]
        return next((each for each in fit if not each.starts.has_no_share), fit[0] if fit else None)

    def _some_may_come(self) -> bool:
        coming = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
        return any(each.connectivity() in coming and not each.rests for each in self._all)

    def _in_turn(self, replica: Replica | None) -> Replica | None:
        if replica is not None:
            self._all.remove(replica)
            self._all.append(replica)
        return replica


class _Spread:
    """What stubs take for a channel."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def unary_unary(self, *method: Any, **more: Any) -> Callable[..., Awaitable[object]]:
        async def call(request: object, *, timeout: float | None = None) -> object:
            replica = await self._replicas.chosen()
            try:
                response: object = await replica.channel.unary_unary(*method, **more)(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or not _waits(request):
                    replica.answered(error.code())
                raise
            replica.answered(grpc.StatusCode.OK)
            return response

        return call

    def unary_stream(self, *method: Any, **more: Any) -> Callable[..., object]:
        def call(request: object) -> object:
            return self._replicas.first().channel.unary_stream(*method, **more)(request)

        return call

    def stream_stream(self, *method: Any, **more: Any) -> None:
        """Sessions belong to one orchestrator each, so that nobody opens them here."""

    async def close(self) -> None:
        await self._replicas.close()


def _waits(request: object) -> bool:
    """Whether a call waits for a saga: that its time is over says nothing of who was asked."""
    return isinstance(request, orchestrator_pb2.GetSagaRequest) and request.wait
