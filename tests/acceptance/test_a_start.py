"""Group A: definitions and starts."""

from __future__ import annotations

from amends import SagaStatus, StepStatus
from tests.acceptance.harness import World, definition, succeed


async def test_a01_three_steps_run_in_order_to_completed(world: World) -> None:
    world.worker.on("one", succeed({"n": 1}))
    world.worker.on("two", succeed({"n": 2}))
    world.worker.on("three", succeed({"n": 3}))
    saga = await world.run(definition("three_steps", "one", "two", "three"), {"order": 7})
    assert world.ledger.names() == ["one", "two", "three"]
    assert world.ledger.effects("s") == ["one", "two", "three"]
    assert saga.status is SagaStatus.COMPLETED
    assert [each.status for each in saga.steps] == [StepStatus.SUCCEEDED] * 3
    assert [each.attempts for each in saga.steps] == [1, 1, 1]
    assert all(each.start_time and each.end_time and each.start_time <= each.end_time for each in saga.steps)
    assert saga.input.read(object) == {"order": 7}
    assert saga.cause is None
