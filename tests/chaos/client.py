"""A client of the chaos as a process: `python -m tests.chaos.client NAME SEED DIARY ADDRESS…`.

Starts transfers, repeats and cancels some, waits for their ends and watches them; after SIGTERM it begins nothing new,
and ends once it knows how all it began has ended. Started again, it goes on with what its diary says.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TypeVar

import grpc

from amends import Client, SagaHandle, SagaView
from amends.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    RpcError,
    Unavailable,
)
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc, saga_pb2
from tests.chaos.diary import Diary, Known, Order
from tests.chaos.transfers import ACCOUNTS, BALANCE, BANKS, NOWHERE, Confirmation, Transfer, transfer

AT_A_TIME = 12
CALL_S = 2.0
RETRY_S = 0.2
AGAIN_S = 0.05
WATCH_S = 5.0
"""A stream is opened again after this long, whether it works or not: also one that hangs."""

PASSING = (Unavailable, Cancelled, DeadlineExceeded, ResourceExhausted)
"""What faults may look like to a client. Anything else is a complaint."""

FINAL = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED)

T = TypeVar("T")
Handle = SagaHandle[Confirmation]


class Way:
    """One of the addresses. `watch` is of a channel of its own, so that nothing comes between it and the wire."""

    def __init__(self, client: Client, channel: grpc.aio.Channel) -> None:
        self.client = client
        self.stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)


class Teller:
    """Carries transfers out through any of the ways."""

    def __init__(self, name: str, rng: random.Random, diary: Diary, ways: list[Way]) -> None:
        self._name = name
        self._rng = rng
        self._diary = diary
        self._ways = ways
        self._turn = 0
        self._number = len(diary.known)
        self.ending = asyncio.Event()

    async def resume(self) -> None:
        """Go on with what the last process left."""
        left = [known for known in self._diary.known.values() if not known.is_done]
        await asyncio.gather(*(self._carry_out(known) for known in left))

    async def work(self) -> None:
        """Begin one transfer after another until the end."""
        while not self.ending.is_set():
            self._number += 1
            known = self._order(f"{self._name}-{self._number}")
            await self._carry_out(known)
            await asyncio.sleep(self._rng.uniform(0, 0.05))

    def _order(self, id: str) -> Known:
        rng = self._rng
        forward = rng.random() < 0.3
        self._diary.note(
            "wanted",
            id,
            source_bank=rng.choice(BANKS),
            source=rng.choice(ACCOUNTS),
            destination_bank=rng.choice(BANKS),
            destination=rng.choice(ACCOUNTS if forward else (*ACCOUNTS, NOWHERE)),
            amount=rng.choice((1, 10, 100, 5 * BALANCE)),
            forward=forward,
            watched=rng.random() < 0.4,
        )
        return self._diary.known[id]

    async def _carry_out(self, known: Known) -> None:
        order = known.order
        handle = None if known.acknowledged else await self._started(known)
        if not known.acknowledged:
            return
        watching = asyncio.create_task(self._watch(known))
        if self._rng.random() < 0.1:
            await self._again(order)
        if self._rng.random() < 0.1:
            await self._cancel(order)
        if not known.ends:
            self._diary.note("ended", order.id, status=str((await self._end_of(order, handle)).status))
        await watching

    async def _end_of(self, order: Order, handle: Handle | None) -> SagaView:
        """Wait for the end as it is told to whoever started the saga, or else as anybody may ask for it."""
        if handle is not None:
            with suppress(*PASSING):
                return await self._try(order, lambda way: handle.wait())
        return await self._insist(order, lambda way: way.client.saga(None, order.id).wait())

    async def _started(self, known: Known) -> Handle | None:
        """Start until that is acknowledged; some do not insist, and never hear of it."""
        patient = self._rng.random() < 0.8
        while True:
            try:
                handle = await self._try(known.order, lambda way: _start(way, known.order))
            except PASSING:
                if not patient:
                    self._diary.note("given_up", known.order.id)
                    return None
            else:
                self._diary.note("acknowledged", known.order.id)
                return handle
            await asyncio.sleep(AGAIN_S)

    async def _again(self, order: Order) -> None:
        """The same start again gives the same saga, and another one under that id is refused."""
        await self._insist(order, lambda way: _start(way, order))
        try:
            await self._insist(order, lambda way: _start(way, order, amount=order.amount + 1), expected=AlreadyExists)
        except AlreadyExists:
            return
        self._complain(order, "started again with other content")

    async def _cancel(self, order: Order) -> None:
        try:
            saga = order.id
            await self._insist(
                order, lambda way: way.client.saga(None, saga).cancel("for the test"), expected=FailedPrecondition
            )
        except FailedPrecondition:
            return  # it was over, or could not be turned round any more
        self._diary.note("cancelled", order.id)

    async def _insist(
        self, order: Order, call: Callable[[Way], Awaitable[T]], *, expected: type[RpcError] | None = None
    ) -> T:
        """Call until somebody answers."""
        while True:
            try:
                return await self._try(order, call, expected=expected)
            except PASSING:
                await asyncio.sleep(AGAIN_S)

    async def _try(
        self, order: Order, call: Callable[[Way], Awaitable[T]], *, expected: type[RpcError] | None = None
    ) -> T:
        """Call one of the orchestrators, each in its turn."""
        self._turn += 1
        try:
            return await call(self._ways[self._turn % len(self._ways)])
        except RpcError as error:
            if isinstance(error, PASSING):
                self._diary.note("refused", order.id, code=f"{error.code.name} {error.reason}".strip())
            elif expected is None or not isinstance(error, expected):
                self._complain(order, f"{type(error).__name__}: {error}")
            raise

    def _complain(self, order: Order, text: str) -> None:
        self._diary.note("complained", order.id, text=text)

    async def _watch(self, known: Known) -> None:
        while known.watched and not known.watch_ended:
            self._turn += 1
            await self._watch_once(known, self._ways[self._turn % len(self._ways)])

    async def _watch_once(self, known: Known, way: Way) -> None:
        """Read a stream from where the last one broke; note what comes, whether it fits or not."""
        request = orchestrator_pb2.WatchSagaRequest(
            namespace="default", saga_id=known.order.id, after_sequence=known.seen[-1] if known.seen else 0
        )
        stream = way.stub.WatchSaga(request, timeout=WATCH_S)
        try:
            async for response in stream:
                final = response.status in FINAL
                self._diary.note("seen", known.order.id, sequence=response.event.sequence, final=final)
            if not known.saw_the_end:
                self._complain(known.order, "a stream ended well before the saga did")
            self._diary.note("watch_ended", known.order.id)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE):
                self._complain(known.order, f"a watcher was told {error.code().name}: {error.details()}")
            await asyncio.sleep(AGAIN_S)


async def _start(way: Way, order: Order, amount: int | None = None) -> Handle:
    saga = transfer(order.source_bank, order.destination_bank, forward=order.forward)
    return await way.client.start(saga, Transfer(order.source, order.destination, amount or order.amount), id=order.id)


async def main(name: str, seed: str, path: str, *addresses: str) -> None:
    diary = Diary(Path(path))
    rng = random.Random(f"{seed}-{name}-{len(diary.known)}")
    async with AsyncExitStack() as stack:
        ways = []
        for address in addresses:
            client = await stack.enter_async_context(Client(address, timeout=CALL_S, retry_for=RETRY_S))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=[]))
            ways.append(Way(client, channel))
        teller = Teller(name, rng, diary, ways)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, teller.ending.set)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(teller.resume())
            for _ in range(AT_A_TIME):
                tasks.create_task(teller.work())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
