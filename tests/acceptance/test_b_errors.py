"""Group B, cases 16 and 17: business errors that a rule handles, and outputs that the orchestrator refuses."""

from __future__ import annotations

import json

from amends import EventKind, SagaStatus, StepStatus
from tests.acceptance.harness import World, definition, refuse, rule, step, succeed, system_error


async def test_b16_a_handled_error_goes_on_with_the_given_output(world: World) -> None:
    world.worker.on("two", refuse("NO_STOCK", "none left", data={"left": 0}))
    given = {"reserved": "${error.data.left}", "why": "${error.code}"}
    saga = await world.run(
        definition("handled", "one", step("two", on_error=[rule("continue", "NO_STOCK", output=given)]),
                   step("three", input={"hold": "${steps.two.output}"}), output="${steps.two.output.why}")
    )  # fmt: skip
    assert world.ledger.names() == ["one", "two", "three"]
    assert saga.status is SagaStatus.COMPLETED
    two = saga.step("two")
    assert two.status is StepStatus.SKIPPED
    assert two.error is not None
    assert two.error.code == "NO_STOCK"
    request = world.ledger.calls("s", "three")[0].execute_request
    assert json.loads(request.input.json) == {"hold": {"reserved": 0, "why": "NO_STOCK"}}
    assert saga.message.output.json == '"NO_STOCK"'
    assert world.ledger.effects("s") == ["one", "three"]


async def test_b16_a_handled_step_is_not_undone_when_a_later_one_fails(world: World) -> None:
    world.worker.on("two", refuse("NO_STOCK"))
    world.worker.on("three", refuse("NO_MONEY"))
    saga = await world.run(definition("later", "one", step("two", on_error=[rule("continue")]), "three"))
    assert world.ledger.names() == ["one", "two", "three", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("two").status is StepStatus.SKIPPED


async def test_b16_a_rule_that_says_compensate_turns_back(world: World) -> None:
    world.worker.on("two", refuse("NO_STOCK", data={"left": 3}))
    rules = [rule("continue", when="error.data.left == 0"), rule("compensate", "NO_STOCK"), rule("continue")]
    saga = await world.run(definition("back", "one", step("two", on_error=rules), "three"))
    assert world.ledger.names() == ["one", "two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED


async def test_b16_a_rule_does_not_go_on_over_an_attempt_without_verdict(world: World) -> None:
    world.worker.on("two", system_error(effect=True), refuse("NO_STOCK"))
    saga = await world.run(definition("unproven", "one", step("two", on_error=[rule("continue")]), "three"))
    assert world.ledger.names() == ["one", "two", "two", "undo two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.effects("s") == []


async def test_b16_a_rule_has_an_error_tried_again(world: World) -> None:
    world.worker.on("two", refuse("BUSY"), refuse("BUSY"), succeed({"n": 1}))
    saga = await world.run(definition("again", "one", step("two", attempts=3, on_error=[rule("retry", "BUSY")])))
    assert world.ledger.names() == ["one", "two", "two", "two"]
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("two").attempts == 3
    assert len(world.ledger.keys("s", "two")) == 1


async def test_b16_an_error_that_stays_is_a_failure_without_effect(world: World) -> None:
    world.worker.on("two", refuse("BUSY"))
    saga = await world.run(definition("stays", "one", step("two", attempts=2, on_error=[rule("retry")])))
    assert world.ledger.names() == ["one", "two", "two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("two").status is StepStatus.FAILED


async def test_b17_an_output_that_the_schema_does_not_allow_is_undone(world: World) -> None:
    world.worker.on("two", succeed({"id": 7}))
    schema = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    saga = await world.run(definition("schema", "one", step("two", output_schema=schema), "three"))
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    error = saga.step("two").error
    assert error is not None
    assert (error.code, error.participant) == ("OUTPUT_REFUSED", "worker")
    assert "`output.id`" in error.message
    undo = world.ledger.calls("s", "undo two")[0].compensate_request
    assert undo.output.json == '{"id":7}'
    assert EventKind.STEP_OUTPUT_REFUSED in [event.kind for event in await world.journal()]
    assert world.ledger.effects("s") == []


async def test_b17_an_expression_without_value_turns_back_what_was_done(world: World) -> None:
    world.worker.on("two", succeed({"n": 1}))
    saga = await world.run(definition("expression", "one", "two", output={"x": "${steps.two.output.n / 0}"}))
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.cause is not None
    assert saga.cause.error is not None
    assert "`steps.two.output.n / 0`" in saga.cause.error.message
