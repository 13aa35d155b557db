"""One orchestrator process: everything that the server is made of, but for its sockets, its file and its clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.rpc import error_details_pb2, status_pb2

from amends.testing.simulation.disk import SimulatedStore
from amends.testing.simulation.lease import Lease
from amends.testing.simulation.loop import OWNER, Owner
from amends_server.engine.policy import SECOND_US, Time
from amends_server.parts import Parts
from amends_server.runner.active import ActiveSaga
from amends_server.store.protocol import SagaKey, StoredSaga
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.session import LateTold

if TYPE_CHECKING:
    from amends.testing.simulation.world import World

DRAIN_S = 3.0
ACTIVE_MAX = 4
"""Fewer than there may be sagas: starts are refused, calls put off, and those that wait are soon let go of."""

PAYLOAD_BYTES_MAX = 1 << 20
EPOCH_US = 1_800_000_000 * SECOND_US


class SimulatedClock:
    """Wall time: virtual time, and what the clock has jumped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jumped_us = 0

    def now(self) -> Time:
        return EPOCH_US + round(self._loop.time() * SECOND_US) + self.jumped_us


class CallFailed(Exception):
    """A call ended with a status that is not OK."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", details: str = "", *, stale: bool = False) -> None:
        super().__init__(" ".join(filter(None, (code.name, reason, details))))
        self.code = code
        self.reason = reason
        self.stale = stale
        """Said by a process that another one has succeeded, and that was not told so."""


class Process(Owner):
    """The server's parts, put together as in `app`."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.clock = world.clock
        self.context = Context()
        self.context.run(OWNER.set, self)
        self.ready = False
        self.lease: Lease
        self._unwoken: dict[SagaKey, int] = {}
        self.waiting: list[asyncio.Future[Any]] = []
        """Clients that wait for an answer; told when the process dies."""

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run something in this process."""
        task: asyncio.Task[Any] = self.world.loop.create_task(work, context=self.context.copy())
        return task

    def stale(self, key: SagaKey) -> bool:
        """Tell whether another process owns the saga, though this one was not told so."""
        return self.lease.epoch_of(key) not in (0, self.world.disk.part(key).epoch)

    def claim(self) -> None:
        """Own what nobody owns any more, besides what this process has."""
        if self.world.disk.down or not (gained := self.world.disk.claim(self)):
            return
        self.world.story.see("partitions of a dead process taken over")
        self.world.story.tell(self.name, f"takes over the partitions {sorted(gained)}")
        self.lease.gain(gained)

    def runs(self, key: SagaKey) -> bool:
        return self.ready and self._parts.runner.runs(key)

    @property
    def active_count(self) -> int:
        return self._parts.runner.active_count

    @property
    def halted(self) -> Mapping[SagaKey, str]:
        return self._parts.runner.halts.why if self.ready else {}

    async def start(self) -> None:
        store = SimulatedStore(self.world, self)
        await store.open()
        self.lease = ownership = await store.own()
        self._parts = Parts(
            store=store,
            transport=self._connect,
            clock=self.clock,
            ownership=ownership,
            secret=await store.secret(),
            fixed=[Endpoint(name, "127.0.0.1:1", 100) for name in self.world.subject.participants],
            allows=lambda _: True,
            active_max=ACTIVE_MAX,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
        )
        self.orchestrator, self.operator = self._parts.orchestrator, self._parts.operator
        await self._parts.open()
        await ownership.start("", self._parts.take_over, self._parts.runner.busy)
        self._ring = self._parts.runner.ring
        self._parts.runner.ring = self._ring_or_lose  # type: ignore[method-assign]
        self._keeping = asyncio.create_task(self._parts.run())
        self._keeping.add_done_callback(self._kept)
        self.ready = True

    def _connect(self, late: LateTold) -> Any:
        self.take_late = late
        return self.world.network.port(self)

    def _kept(self, keeping: asyncio.Task[None]) -> None:
        if not keeping.cancelled() and keeping.exception() is not None:
            self.world.fail(f"I28: the keeper ended with {keeping.exception()!r}")

    def _ring_or_lose(self, saga: ActiveSaga) -> None:
        """Wake a saga whose time has come, but for now and then."""
        about = f"{self.name} {saga.key.saga_id}"
        if saga.state is None or not self.world.dice.strikes("wake-up lost", about, 0.1):
            self._ring(saga)
            return
        self.world.story.tell(self.name, f"loses the wake-up of {saga.key.saga_id}")
        self._unwoken[saga.key] = saga.state.sequence

    def sweep_finds(self, row: StoredSaga) -> None:
        """Note what only a sweep finds: a saga whose wake-up was lost, or that was let go of because it waits."""
        if self._unwoken.pop(row.key, None) == row.head.sequence:
            self.world.story.see("wake-up lost, and made up for by the sweep")
        elif row.head.epoch == self.lease.epoch_of(row.key) and not self.runs(row.key):
            self.world.story.see("woken by the sweep")

    async def drain(self) -> None:
        """Stop as `app.Server.stop` does."""
        self._parts.hold()
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await self._parts.settle(DRAIN_S)
        self._parts.part()
        await self._parts.close()

    # Calls from clients

    def serve(self, method: Callable[[Any, Any], Awaitable[Any]], request: Any) -> tuple[asyncio.Future[Any], Any]:
        """Take a unary call; return its answer to come, and what can be cancelled."""
        future: asyncio.Future[Any] = self.world.loop.create_future()
        self.waiting.append(future)
        task = self.spawn(self._serve(method, request, future))
        return future, task

    async def _serve(
        self, method: Callable[[Any, Any], Awaitable[Any]], request: Any, future: asyncio.Future[Any]
    ) -> None:
        try:
            response = await method(request, SimulatedContext())
        except CallAborted as aborted:
            self._answer(future, partial(future.set_exception, CallFailed(aborted.code, aborted.reason, str(aborted))))
        else:
            self._answer(future, partial(future.set_result, response))

    def _answer(self, future: asyncio.Future[Any], tell: Callable[[], None]) -> None:
        if not self.world.effect(self, "crash before an acknowledgement") and not future.done():
            tell()

    async def stream(
        self, responses: AsyncGenerator[Any, None], got: Callable[[Any], None], ended: asyncio.Future[Any]
    ) -> None:
        """Send the responses of a streaming call to `got`, and say in `ended` how it ended."""
        try:
            async with aclosing(responses):
                async for response in responses:
                    if ended.done():
                        break
                    got(response)
        except CallAborted as aborted:
            if not ended.done():
                ended.set_exception(CallFailed(aborted.code, aborted.reason, str(aborted)))
        else:
            if not ended.done():
                ended.set_result(None)


class CallAborted(grpc.aio.AbortError):
    """Ends a call in its handler, as grpc's own does."""

    def __init__(self, code: grpc.StatusCode, reason: str, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.reason = reason


class SimulatedContext:
    """As much of a ServicerContext as the services use."""

    async def abort(self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, bytes], ...]) -> NoReturn:
        status = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        raise CallAborted(code, info.reason, details)

    def peer(self) -> str:
        return "simulated"

    def invocation_metadata(self) -> tuple[()]:
        return ()
