"""What a hostile definition may cost: counted before it is computed, since nothing else happens meanwhile."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from amends_server.engine.checks.amounts import EXPRESSIONS_MAX, PATHS_MAX, amounts
from amends_server.engine.checks.validation import FINDINGS_MAX, RULES_MAX, check
from amends_server.engine.data.expressions import compile_expression
from amends_server.engine.definition import Definition, ErrorRule, OnError
from tests.engine.build import compensatable, define

SECONDS_MAX = 5.0
"""Of the processor. Each of these took from half a minute to for ever; now it is far below a second."""


@pytest.fixture(autouse=True)
def _soon() -> object:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS_MAX


def templated(*places: str) -> Definition:
    return define(compensatable("a", input_template=json.dumps([f"${{{each}}}" for each in places])))


def codes(definition: Definition) -> set[str]:
    return {problem.code for problem in check(definition)}


def test_expressions_and_paths_are_counted_wherever_they_stand() -> None:
    rule = ErrorRule(
        codes=(), when="error.code == 'A'", then=OnError.CONTINUE, output_template='{"x":["${error.code}"]}'
    )
    step = replace(
        compensatable("a", input_template='["${input.a}","${1 + 1}","plain"]'), when="1 > 0", on_error=(rule,)
    )
    assert amounts(replace(define(step), output_template='"\\u0024{2 > 1}"')) == (4, 2)


def test_more_expressions_than_may_be_are_not_compiled() -> None:
    assert codes(templated(*(f"input.a + {n}" for n in range(20 * EXPRESSIONS_MAX)))) == {"EXPRESSIONS_TOO_MANY"}
    assert codes(templated(*["input.a"] * (PATHS_MAX + 1))) == {"EXPRESSIONS_TOO_MANY"}
    assert codes(templated(*(f"input.a + {n}" for n in range(EXPRESSIONS_MAX)))) == set()


def test_expressions_of_the_same_variables_are_compiled_fast() -> None:
    for number in range(5_000):
        compile_expression(f"input.a + {number} > saga.labels.size()")


def test_more_rules_than_may_be_are_refused() -> None:
    rules = tuple(ErrorRule(codes=(f"C{n}",), when=None, then=OnError.RETRY) for n in range(100_000))
    assert codes(define(replace(compensatable("a"), on_error=rules))) == {"RULES_TOO_MANY"}
    assert codes(define(replace(compensatable("a"), on_error=rules[:RULES_MAX]))) == set()


def test_not_all_of_half_a_million_findings_are_told() -> None:
    assert len(check(define(compensatable("a", *["nobody"] * 500_000)))) == FINDINGS_MAX
