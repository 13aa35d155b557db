"""The runner where it must not go on: what is not durable yet, what another one may own, and what is on its way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from amends_server.engine.commands import Cancel
from amends_server.store.protocol import Append, SagaKey, Stale, StoreError
from tests.server.house import PATIENCE_S, HandClock, House, MoodyStore, step

ONE = SagaKey("default", "one")


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = await House(MoodyStore(), HandClock()).open()
    yield house
    house.store.gate.set()
    await house.close()


async def turn() -> None:
    """Let everything happen that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_i10_whoever_waits_for_a_decision_is_told_by_its_own_commit_and_by_none_before(house: House) -> None:
    await house.start(await house.register(step("a"), step("b")))
    await house.sent(2)
    house.store.gate.clear()
    house.answer(0)
    await turn()  # the commit of the outcome waits, and what comes now is in the next one
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    await house.until(lambda: house.journal.pending == 2)
    house.store.let_one()

    async def recorded() -> bool:
        return (await house.runner.read(ONE)).state.step("a").status.name == "SUCCEEDED"

    await house.until(recorded)
    await turn()
    assert not cancel.done(), "a crash would undo what it was told"
    house.store.gate.set()
    assert (await asyncio.wait_for(cancel, PATIENCE_S)).state.going_back


async def test_i24_a_saga_that_another_one_has_written_is_let_go_of_and_not_mended(house: House) -> None:
    """The mender would read what the other one does, and go on with it."""

    async def refuse(appends: Sequence[Append]) -> list[StoreError | None]:
        return [Stale("Another orchestrator owns it.") for _ in appends]

    await house.start(await house.register(step("a"), step("b", "a")))
    await house.sent(1)
    house.store.commit = refuse  # type: ignore[method-assign]
    house.answer(0)
    await house.until(lambda: house.journal.pending == 0)
    assert house.runner.active_count == 0
    assert not house.runner.mender.broke.is_set()


async def test_i26_a_saga_that_broke_is_not_mended_by_who_does_not_own_it_any_more(house: House) -> None:
    """The intent was recorded though the store said no, and by now it may be the next owner who acts on it."""
    await house.start(await house.register(step("a"), step("b", "a")))
    await house.sent(1)
    house.store.fails_after = 1
    house.answer(0)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    house.runner.domain.epoch_of = lambda key: 0  # type: ignore[method-assign]
    await house.runner.mender.mend()
    await turn()
    assert house.calls == [("a", "do", 1)]
    assert house.runner.active_count == 0
