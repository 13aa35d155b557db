"""The keeper's scans: what is due is woken by its row, when nobody in memory knows of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from amends_server.runner import keeper as keeper_module
from amends_server.runner.halted import HaltedSagas
from amends_server.runner.keeper import Keeper
from amends_server.runner.places import Places
from amends_server.runner.runner import Runner
from amends_server.store.leases import Sole
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import SagaKey
from tests.store.make import NOW, key, start, written

MANY = ("a", "b", "c", "d", "e")


class Sleeping:
    """As much of a runner as the keeper uses, with nothing in memory."""

    def __init__(self) -> None:
        self.halts, self.places = HaltedSagas(), Places(1)
        self.woken: list[SagaKey] = []

    def runs(self, saga: SagaKey) -> bool:
        return False

    async def wake(self, saga: SagaKey) -> None:
        self.woken.append(saga)


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
