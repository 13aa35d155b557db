"""The keeper's scans: what is due is woken by its row, when nobody in memory knows of it."""

from __future__ import annotations

from typing import Any, cast

from amends_server.runner.halted import HaltedSagas
from amends_server.runner.keeper import Keeper
from amends_server.runner.runner import Runner
from amends_server.store.leases import Sole
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import SagaKey
from tests.store.make import NOW, key, start, written


class Sleeping:
    """As much of a runner as the keeper uses, with nothing in memory."""

    def __init__(self) -> None:
        self.halts = HaltedSagas()
        self.woken: list[SagaKey] = []

    async def room(self) -> None: ...

    async def wake(self, saga: SagaKey) -> None:
        self.woken.append(saga)


class Clock:
    def now(self) -> int:
        return NOW


async def test_i23_the_sweep_wakes_what_is_due_and_nothing_else() -> None:
    store, runner = MemoryStore(), Sleeping()
    await store.open()
    due = {"past": NOW - 1, "now": NOW, "later": NOW + 1, "never": None}
    await written(store, *(start(key(name), due=time) for name, time in due.items()))
    keeper = Keeper(store, Sole(1), cast(Runner, runner), cast(Any, Clock()))
    await keeper._sweep()
    assert runner.woken == [key("past"), key("now")]
