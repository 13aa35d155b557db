"""The harness itself: processes that can be killed, participants that break down, and what the ledger keeps."""

from __future__ import annotations

from pathlib import Path

from amends import SagaStatus
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    UNARY,
    Gate,
    Process,
    World,
    definition,
    die,
    refuse,
    step,
    succeed,
)


async def test_a_killed_process_goes_on_at_the_same_address(tmp_path: Path) -> None:
    process, gate = Process(tmp_path / "amends.db"), Gate()
    async with World.opened(tmp_path, process) as world:
        world.worker.on("two", gate.after())
        await world.start(definition("killed", "one", "two"))
        await gate.reached()
        address, pid = process.address, process.pid
        await process.kill()
        gate.release()
        await process.start()
        assert process.address == address
        assert process.pid != pid
        saga = await world.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.names() == ["one", "two", "two"]
    assert world.ledger.effects() == ["one", "two"]


async def test_a_participant_that_broke_down_comes_back_at_the_same_address(world: World) -> None:
    world.worker.on("one", die(effect=True))
    await world.start(definition("broken", step("one", attempts=-1, interval_s=0.05)))
    await world.until("s", "step_retry_scheduled")
    address = world.worker.address
    world.worker.on("one", succeed())
    await world.worker.close()
    await world.worker.start()
    assert world.worker.address == address
    saga = await world.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.effects_ever("s", "one") == 1


@OVER_BOTH_LINKS
async def test_the_worker_gets_its_calls_over_the_link_that_is_asked_for(world: World, link: str) -> None:
    world.worker.on("two", refuse())
    saga = await world.run(definition("linked", "one", "two"))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo one"]
    assert world.worker.calls_in_sessions == (0 if link == UNARY else 3)
