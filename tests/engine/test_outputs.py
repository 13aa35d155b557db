"""Outputs that no participant gave, but a rule for errors or an operator: they are held to the step's schema, too."""

from __future__ import annotations

import pytest

from amends_server.engine.checks.validation import check
from amends_server.engine.commands import Refused, Rejected, Resolve
from amends_server.engine.definition import ErrorRule, OnError, Step
from amends_server.engine.events import Resolution
from amends_server.engine.payload import Json, Opaque, Payload
from amends_server.engine.state import SagaStatus, StepStatus
from tests.engine.build import NO, Run, compensatable, define, pivot

SCHEMA = '{"type":"object","required":["id"],"properties":{"id":{"type":"array","items":{"type":"integer"}}}}'


def continuing(output: str | None, schema: str | None = SCHEMA) -> Step:
    rule = ErrorRule(then=OnError.CONTINUE, output_template=output)
    return compensatable("a", output_schema=schema, on_error=(rule,))


@pytest.mark.parametrize(
    ("output", "place"),
    [("{}", "The whole"), ('{"id":7}', "`output.id`"), ('{"id":[1,"x"]}', "`output.id[1]`"), ('"$${x}"', "The whole")],
)
def test_a_rule_with_a_literal_output_against_the_schema_is_found_at_once(output: str, place: str) -> None:
    (problem,) = check(define(continuing(output)))
    assert (problem.code, problem.field) == (
        "OUTPUT_AGAINST_SCHEMA",
        "steps[0].on_error[0].continue_with.output_template",
    )
    assert place in problem.message


@pytest.mark.parametrize("output", ['{"id":[1]}', None, '{"id":"${input.x}"}', '"${error.data}"', '"${1 + 1}"'])
def test_what_fits_or_is_not_known_yet_is_taken(output: str | None) -> None:
    assert check(define(continuing(output))) == []


def test_without_a_schema_any_output_is_taken() -> None:
    assert check(define(continuing("5", schema=None))) == []


@pytest.mark.parametrize(("output", "follows"), [('{"id":"${input.x}"}', False), ('{"id":["${input.x}"]}', True)])
def test_at_run_time_a_rule_is_followed_if_its_output_fits(output: str, follows: bool) -> None:
    run = Run(
        compensatable("first"), compensatable("a", "first", output_schema=SCHEMA, on_error=continuing(output).on_error)
    )
    run.done("first")
    run.settle("a", Refused(NO))
    assert run.state.going_back is not follows
    step = run.state.step("a")
    assert (step.status is StepStatus.SKIPPED, step.output is None) == (follows, not follows)
    if not follows:
        assert step.action.error is not None
        assert "`output.id`" in step.action.error.message


def test_a_rule_without_output_skips_the_step() -> None:
    run = Run(continuing(None))
    run.settle("a", Refused(NO))
    assert run.state.status is SagaStatus.COMPLETED


@pytest.mark.parametrize(
    ("output", "field"),
    [
        (None, "output"),
        (Json("{}"), "output"),
        (Json('{"id":[1,"x"]}'), "output.id[1]"),
        (Opaque(b"x", "a/b"), "output"),
    ],
)
def test_an_operator_gives_no_output_against_the_schema(output: Payload | None, field: str) -> None:
    run = Run(pivot("a", output_schema=SCHEMA))
    run.lost("a", again=False)
    assert run.state.status is SagaStatus.STUCK
    with pytest.raises(Rejected) as rejected:
        run.do(Resolve("a", Resolution.SUCCEEDED, output, "why", "op"))
    assert (rejected.value.reason, rejected.value.field) == ("OUTPUT_REFUSED", field)
    run.do(Resolve("a", Resolution.SUCCEEDED, Json('{"id":[]}'), "why", "op"))
    assert run.state.status is SagaStatus.COMPLETED
