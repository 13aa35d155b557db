"""What the simulation found in the runner, each as the shortest way there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from amends_server.engine.commands import Cancel, Rejected, Resolve, Retry, Unknown
from amends_server.engine.events import Resolution
from amends_server.engine.payload import Error
from amends_server.store.protocol import SagaKey
from tests.server.house import HandClock, House, MoodyStore, no, step

ONE = SagaKey("default", "one")
LOST = Unknown(Error("UNAVAILABLE", "Nobody is there."), again=False)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = await House(MoodyStore(), HandClock()).open()
    yield house
    house.store.gate.set()
    await house.close()


async def test_i21_a_cancel_is_not_refused_for_a_completion_that_is_not_durable(house: House) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.gate.clear()
    house.answer(0)
    await house.until(lambda: house.journal.pending == 1)
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not cancel.done(), "a crash could still undo what the cancel was refused for"
    house.store.gate.set()
    with pytest.raises(Rejected, match="completed"):
        await cancel
    assert await house.status() == "COMPLETED"
    await house.until(lambda: house.runner.active_count == 0)


async def stuck(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    for call, verdict in enumerate((None, no(), LOST)):  # a is done, b refused, and a cannot be undone
        await house.sent(call + 1)
        house.answer(call, verdict)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "STUCK"


async def test_i27_a_stuck_saga_that_a_command_takes_into_memory_is_there_once(house: House) -> None:
    await stuck(house)
    await house.runner.command(ONE, Retry("test", "me"))
    await house.sent(4)
    assert house.runner.active_count == 1, "it has a call in flight, and would be taken into memory again"
    house.store.fails_before = 1
    house.answer(3)
    await house.until(house.runner.broke.is_set)  # so that somebody mends it
    await house.runner.mend()
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPENSATED"
    assert len(house.calls) == 4, "a call was sent twice"


async def test_a_stuck_saga_that_refuses_a_command_leaves_memory(house: House) -> None:
    await stuck(house)
    with pytest.raises(Rejected, match="no step"):
        await house.runner.command(ONE, Resolve("c", Resolution.SKIPPED, None, "test", "me"))
    await house.until(lambda: house.runner.active_count == 0)
