"""Group G, cases 53 and 55: branches by conditions, and what a step requires."""

from __future__ import annotations

import pytest

from amends import SagaStatus, StepStatus
from tests.acceptance.harness import World, definition, refuse, step

SUCCEEDED, SKIPPED, PENDING = StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.PENDING

SMALL = "input.amount < 10"
LARGE = f"!({SMALL}) && input.amount < 100"
OTHER = f"!({SMALL}) && !({LARGE})"
BRANCHES = definition(
    "branches",
    "first",
    step("small", after=["first"], when=SMALL),
    step("large", after=["first"], when=LARGE),
    step("large_more", after=["large"], when=LARGE),
    step("other", after=["first"], when=OTHER),
    step("last", after=["small", "large_more", "other"]),
)


@pytest.mark.parametrize(
    ("amount", "called"),
    [
        (5, ["first", "small", "last"]),
        (50, ["first", "large", "large_more", "last"]),
        (500, ["first", "other", "last"]),
    ],
)
async def test_g53_the_first_true_condition_wins(world: World, amount: int, called: list[str]) -> None:
    saga = await world.run(BRANCHES, {"amount": amount})
    assert world.ledger.names() == called
    assert saga.status is SagaStatus.COMPLETED
    assert {each.id for each in saga.steps if each.status is SKIPPED} == {each.id for each in saga.steps} - set(called)


async def test_g53_a_failure_in_a_branch_undoes_the_branch_then_what_was_before(world: World) -> None:
    world.worker.on("large_more", refuse())
    saga = await world.run(BRANCHES, {"amount": 50})
    assert world.ledger.names() == ["first", "large", "large_more", "undo large", "undo first"]
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("small").status is SKIPPED
    assert saga.step("last").status is PENDING


async def test_g53_no_true_condition_skips_all_and_goes_on(world: World) -> None:
    never = definition("never", step("one", when="input.n > 1"), step("two", when="input.n > 2"), "three")
    saga = await world.run(never, {"n": 0})
    assert world.ledger.names() == ["three"]
    assert [each.status for each in saga.steps] == [SKIPPED, SKIPPED, SUCCEEDED]
    assert saga.status is SagaStatus.COMPLETED


async def test_g53_a_saga_of_which_nothing_is_to_be_done_is_completed(world: World) -> None:
    saga = await world.run(definition("nothing", step("one", when="false")))
    assert (saga.status, world.ledger.names()) == (SagaStatus.COMPLETED, [])


async def test_g53_a_condition_without_value_fails_its_step_and_names_the_expression(world: World) -> None:
    saga = await world.run(definition("broken", "one", step("two", when="input.missing > 1")), {"n": 0})
    assert world.ledger.names() == ["one", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    error = saga.step("two").error
    assert error is not None
    assert error.code == "CONDITION_INVALID"
    assert "`input.missing > 1`" in error.message


async def test_g55_missing_keys_are_all_named_before_the_call(world: World) -> None:
    needs = ["input.customer.email", "input.customer.name", "steps.one.output.id"]
    saga = await world.run(definition("needs", "one", step("two", requires=needs)), {"customer": {"name": "ada"}})
    assert world.ledger.names() == ["one", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    two = saga.step("two")
    assert (two.status, two.attempts) == (StepStatus.FAILED, 0)
    assert two.error is not None
    assert two.error.code == "REQUIREMENT_MISSING"
    assert "input.customer.email, steps.one.output.id" in two.error.message
    assert "customer.name" not in two.error.message
