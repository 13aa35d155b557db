"""Group A, case 8: what a definition says of the input is checked at the door; what it says wrongly, before that."""

from __future__ import annotations

import grpc
import pytest

from amends import SagaStatus
from amends.payloads import encode
from amends.v1 import orchestrator_pb2
from tests.acceptance.harness import World, definition, refusal_of, step

LINE = {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}}}
SCHEMA = {
    "type": "object",
    "required": ["customer", "lines"],
    "properties": {
        "customer": {"type": "string", "minLength": 1},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": LINE},
}
ORDER = definition("order", step("one", input={"who": "${input.customer + '!'}"}), input_schema=SCHEMA)

BAD = {
    "a field is missing": ({"customer": "ada"}, "input"),
    "a wrong type deep down": ({"customer": "ada", "lines": [{"sku": "tea"}, {"sku": 5}]}, "input.lines[1].sku"),
    "an empty name": ({"customer": "", "lines": []}, "input.customer"),
    "no object": ("ada", "input"),
    "no input": (None, "input"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a08_an_input_that_the_schema_does_not_allow_is_refused(world: World, what: str) -> None:
    value, field = BAD[what]
    await world.client.register(ORDER)
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", definition={"name": "order"})
    if value is not None:
        request.input.CopyFrom(encode(value))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.wire.orchestrator.StartSaga(request)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID")
    assert list(refusal.violations) == [field]
    assert world.ledger.names() == []
    listed = await world.wire.orchestrator.ListSagas(orchestrator_pb2.ListSagasRequest())
    assert not listed.sagas


async def test_a08_an_input_that_fits_is_taken(world: World) -> None:
    saga = await world.run(ORDER, {"customer": "ada", "lines": [{"sku": "tea", "n": 2}]})
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.calls("s", "one")[0].execute_request.input.json == '{"who":"ada!"}'


async def test_a08_a_repeated_start_is_answered_though_a_newer_version_is_stricter(world: World) -> None:
    await world.client.register(definition("order", "one"))
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", definition={"name": "order"}, input=encode("ada"))
    first = await world.wire.orchestrator.StartSaga(request)
    await world.client.register(ORDER)
    again = await world.wire.orchestrator.StartSaga(request)
    assert (first.created, again.created) == (True, False)
    assert again.saga.definition_version == first.saga.definition_version == 1


WRONG = {
    "no JSON": ("{", "SCHEMA_INVALID"),
    "no schema": ('{"type":"nope"}', "SCHEMA_INVALID"),
    "a reference to elsewhere": ('{"$ref":"http://127.0.0.1:1/schema.json"}', "SCHEMA_INVALID"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a08_a_schema_that_is_none_is_refused_with_the_definition(world: World, what: str) -> None:
    text, code = WRONG[what]
    bad = definition("bad", "one")
    bad.input_schema = text
    request = orchestrator_pb2.RegisterDefinitionRequest(definition=bad)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.wire.orchestrator.RegisterDefinition(request)
    refusal = refusal_of(caught.value)
    assert refusal.reason == "DEFINITION_INVALID"
    assert refusal.violations["definition.input_schema"].startswith(code)


async def test_a04_expressions_are_checked_against_the_schema(world: World) -> None:
    bad = definition(
        "bad",
        step("one", input={"a": "${input.custumer}"}, output_schema={"type": "object", "properties": {"n": {}}}),
        step("two", when="input.customer > 3", requires=["steps.one.output.m"]),
        step("three", when="input.customer + 'x'", input="${1 +}"),
        input_schema=SCHEMA,
    )
    check = await world.wire.orchestrator.CheckDefinition(orchestrator_pb2.CheckDefinitionRequest(definition=bad))
    found = {finding.field: finding.code for finding in check.diagnostics if finding.severity == 1}
    assert found == {
        "steps[0].input_template": "FIELD_UNKNOWN",
        "steps[1].when": "EXPRESSION_INVALID",
        "steps[1].requires[0]": "FIELD_UNKNOWN",
        "steps[2].when": "EXPRESSION_INVALID",
        "steps[2].input_template": "TEMPLATE_INVALID",
    }
    texts = {finding.field: finding.message for finding in check.diagnostics}
    assert "1:16" in texts["steps[1].when"]
    assert "customer" in texts["steps[0].input_template"]
