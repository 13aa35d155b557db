"""A runner with everything real around it but the network and the store's mood: calls and commits wait for the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from typing import Any

from amends_server.catalogue import Catalogue, Entry
from amends_server.convert.definition import definition_body
from amends_server.engine.commands import Refused, Succeeded, Verdict
from amends_server.engine.definition import Compensation, Definition, Step, digest
from amends_server.engine.due import CallOrder
from amends_server.engine.events import SagaStarted
from amends_server.engine.payload import Error, Json
from amends_server.engine.policy import SECOND_US, Retry, Time
from amends_server.hub import Hub
from amends_server.journal import Journal
from amends_server.runner.domain import Domain
from amends_server.runner.keeper import Keeper
from amends_server.runner.reader import Reader, View
from amends_server.runner.runner import Runner
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import Append, Birth, SagaKey, StoredDefinition, StoreError, Unavailable
from amends_server.transport.attempts import Obstacle, Told
from amends_server.transport.requests import Origin

PATIENCE_S = 30.0
ONCE = Retry(attempts_max=1)


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time: Time = 1_800_000_000 * SECOND_US

    def now(self) -> Time:
        return self.time


class MoodyStore(MemoryStore):
    """Can be told to hold commits back, to fail them, or to do them and say so late, or that it failed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.said = asyncio.Event()
        self.said.set()
        self._one = False
        self.fails_before = 0
        self.fails_after = 0
        self.down = False
        self.unreadable: set[SagaKey] = set()

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        await self.gate.wait()
        if self._one:
            self._one = False
            self.gate.clear()
        if self.down or self.fails_before:
            self.fails_before = max(0, self.fails_before - 1)
            raise Unavailable("The store is in no mood.")
        outcomes = await super().commit(appends)
        await self.said.wait()
        if self.fails_after:
            self.fails_after -= 1
            raise Unavailable("The store did it and does not say so.")
        return outcomes

    def let_one(self) -> None:
        """Let the commit that is held back be done, and hold back the next one."""
        self._one = True
        self.gate.set()

    def back_up(self) -> Callable[[], None]:
        """Copy the sagas, and return what puts the copy where they are."""
        copy = deepcopy(self._sagas)

        def restore() -> None:
            self._sagas = copy

        return restore

    async def get_saga(self, key: SagaKey) -> Any:
        if self.down or key in self.unreadable:
            raise Unavailable("The store is in no mood.")
        return await super().get_saga(key)


class House:
    """One process: its runner on a store that outlives it, and the calls that it sent, in their order."""

    def __init__(self, store: MoodyStore, clock: HandClock, *, active_max: int = 100) -> None:
        self.store = store
        self.clock = clock
        self.calls: list[tuple[str, str, int]] = []
        self.orders: list[CallOrder] = []
        self.obstacles: list[Obstacle] = []
        self._told: list[Told] = []
        self._sent = asyncio.Event()
        self._active_max = active_max

    async def open(self) -> House:
        await self.store.open()
        catalogue = Catalogue(self.store)
        reader = Reader(self.store, catalogue)
        self.catalogue = catalogue
        self.journal = Journal(self.store)
        self.journal.start()
        self.hub = Hub()
        ownership = await self.store.own()
        self.runner = Runner(
            journal=self.journal,
            reader=reader,
            send=self._send,
            hub=self.hub,
            clock=self.clock,
            domain=Domain(ownership, self.clock),
            active_max=self._active_max,
        )
        self.keeper = Keeper(self.store, ownership, self.runner, self.clock)
        self.keeper.gain(None)
        return self

    async def close(self) -> None:
        await self.journal.close()

    def _send(self, name: str, order: CallOrder, origin: Origin, told: Told, obstacle: Obstacle) -> None:
        self.calls.append((order.node.step.id, "undo" if order.compensation else "do", order.attempt))
        self.orders.append(order)
        self._told.append(told)
        self.obstacles.append(obstacle)
        self._sent.set()

    async def register(self, *steps: Step, **more: Any) -> Entry:
        definition = Definition(name="test", steps=steps, **more)
        stored = StoredDefinition(
            namespace="default",
            name="test",
            version=0,
            digest=digest(definition),
            body=definition_body(definition),
            create_time=self.clock.now(),
        )
        entry, _ = await self.catalogue.register(stored)
        return entry

    async def start(self, entry: Entry, saga_id: str = "one", deadline_s: int | None = None) -> tuple[View, bool]:
        return await self.runner.start(*self.wish(entry, saga_id, deadline_s))

    def wish(
        self, entry: Entry, saga_id: str = "one", deadline_s: int | None = None
    ) -> tuple[SagaKey, Birth, Entry, SagaStarted]:
        """Return what a saga is started with."""
        now = self.clock.now()
        birth = Birth(
            definition_name="test",
            definition_version=entry.stored.version,
            definition_digest=entry.stored.digest,
            fingerprint=b"same",
            create_time=now,
        )
        started = SagaStarted(
            time=now,
            namespace="default",
            saga_id=saga_id,
            definition_digest=entry.stored.digest,
            input=Json("{}"),
            deadline=None if deadline_s is None else now + deadline_s * SECOND_US,
        )
        return SagaKey("default", saga_id), birth, entry, started

    def answer(self, call: int, verdict: Verdict | None = None) -> None:
        """Answer the n-th call, by default with success."""
        self._told[call](verdict or Succeeded(Json('"done"')))

    async def sent(self, count: int) -> None:
        """Wait until that many calls were sent."""
        await self.until(lambda: len(self.calls) >= count)

    async def status(self, saga_id: str = "one") -> str:
        return (await self.runner.read(SagaKey("default", saga_id))).state.status.name

    async def until(self, holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
        """Let the loop go on until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                result = holds()
                if result if isinstance(result, bool) else await result:
                    return
                await asyncio.sleep(0)


def lapse(house: House) -> None:
    """Let the lease run out, and be renewed in the same epoch."""
    epoch_of = house.runner.domain.epoch_of
    house.runner.domain.epoch_of = lambda key: 0  # type: ignore[method-assign]
    house.runner.adapt()
    house.runner.domain.epoch_of = epoch_of  # type: ignore[method-assign]


def step(step_id: str, *after: str, participant: str = "p", retry: Retry = ONCE, **more: Any) -> Step:
    undo = Compensation(retry=ONCE)
    return Step(id=step_id, participant=participant, action="a", after=after, retry=retry, compensation=undo, **more)


def no() -> Refused:
    return Refused(Error("NO", "No."))
