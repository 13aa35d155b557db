"""The keeper's scans: what is due is woken by its row, when nobody in memory knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from amends_server.runner import keeper as keeper_module
from amends_server.runner.halted import HaltedSagas
from amends_server.runner.keeper import Keeper
from amends_server.runner.places import Places
from amends_server.runner.runner import Runner
from amends_server.store.leases import Sole
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import SagaKey, Unavailable
from tests.store.make import NOW, key, start, written

WAIT_S = 30
MANY = ("a", "b", "c", "d", "e")


class Sleeping:
    """As much of a runner as the keeper uses, with nothing in memory."""

    def __init__(self) -> None:
        self.halts, self.places = HaltedSagas(), Places(1)
        self.mender = SimpleNamespace(broke=asyncio.Event())
        self.woken: list[SagaKey] = []
        self.unreadable: set[SagaKey] = set()
        self.tried = asyncio.Event()

    def runs(self, saga: SagaKey) -> bool:
        return False

    async def wake(self, saga: SagaKey) -> None:
        self.tried.set()
        if saga in self.unreadable:
            raise Unavailable("that part of the disk is broken")
        self.woken.append(saga)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.tried.clear()
                await self.tried.wait()


class Clock:
    def now(self) -> int:
        return NOW


def keeper_of(store: MemoryStore, runner: Sleeping) -> Keeper:
    return Keeper(store, Sole(1), cast(Runner, runner), cast(Any, Clock()))


@pytest.fixture
async def many(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store with more sagas, all of them due, than two pages have."""
    monkeypatch.setattr(keeper_module, "PAGE_ROWS", 2)
    store = MemoryStore()
    await store.open()
    await written(store, *(start(key(name), due=NOW) for name in MANY))
    return store


async def test_i23_the_sweep_wakes_what_is_due_and_nothing_else() -> None:
    store, runner = MemoryStore(), Sleeping()
    await store.open()
    due = {"past": NOW - 1, "now": NOW, "later": NOW + 1, "never": None}
    await written(store, *(start(key(name), due=time) for name, time in due.items()))
    await keeper_of(store, runner)._sweep()
    assert runner.woken == [key("past"), key("now")]


async def test_i23_the_sweep_goes_on_behind_the_first_page(many: MemoryStore) -> None:
    runner = Sleeping()
    await keeper_of(many, runner)._sweep()
    assert runner.woken == [key(name) for name in MANY]


async def test_i28_recovery_goes_on_behind_the_first_page(many: MemoryStore) -> None:
    runner = Sleeping()
    await keeper_of(many, runner)._recover(None)
    assert runner.woken == [key(name) for name in MANY]


async def test_i28_a_saga_that_cannot_be_read_keeps_none_from_being_recovered(
    many: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those that were found with it, nor those of partitions that are gained later. It is tried again."""
    monkeypatch.setattr(keeper_module, "RETRY_INTERVAL_S", 0.01)
    monkeypatch.setattr(keeper_module, "SWEEP_INTERVAL_S", 600.0)
    runner = Sleeping()
    keeper = keeper_of(many, runner)
    bad, *others = map(key, MANY)
    runner.unreadable = {bad}
    keeper.gain(None)
    loops = asyncio.create_task(keeper.run())
    try:
        await runner.until(lambda: len(runner.woken) >= 2 * len(others))  # by the sweep, and as recovered
        assert bad not in runner.woken
        runner.woken.clear()
        keeper.gain(None)
        await runner.until(lambda: runner.woken == others)
        runner.unreadable.clear()
        await runner.until(lambda: bad in runner.woken)
    finally:
        loops.cancel()
        await asyncio.wait([loops])


async def test_i28_a_saga_that_cannot_be_read_is_not_forgotten_while_others_are_read_again(
    many: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those are taken up again and again before it is known that this one cannot be read."""
    monkeypatch.setattr(keeper_module, "RETRY_INTERVAL_S", 0.0)
    bad, reading = key(MANY[0]), asyncio.Event()

    class Slow(Sleeping):
        async def wake(self, saga: SagaKey) -> None:
            if saga == bad and not reading.is_set():
                await reading.wait()
                raise Unavailable("that part of the disk is broken")
            await super().wake(saga)

    runner = Slow()
    keeper = keeper_of(many, runner)
    keeper.gain(None)
    loops = [asyncio.create_task(work) for work in (keeper._recover_for_ever(), keeper._read_again_for_ever())]
    try:
        for _ in range(50):
            await asyncio.sleep(0)
        reading.set()
        await runner.until(lambda: bad in runner.woken)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
