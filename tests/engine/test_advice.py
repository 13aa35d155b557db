"""Warnings: each for what it is for, and none for what is sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amends_server.engine.advice import advise
from amends_server.engine.definition import Compensation, Definition, ErrorRule, OnError
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry
from amends_server.engine.problem import Severity
from amends_server.engine.validation import check
from tests.engine.build import compensatable, define, pivot, retriable

FEW, MANY, ALWAYS = Retry(attempts_max=1), Retry(attempts_max=5), Retry(attempts_max=ENDLESS)
UNDO = Compensation(retry=MANY)
A = compensatable("a", retry=MANY, compensation=UNDO)
B = compensatable("b", "a", retry=MANY, compensation=UNDO)
ANY = ErrorRule(then=OnError.CONTINUE, output_template="1")

CASES: dict[str, tuple[Definition, str, str]] = {
    "compensation tried once": (
        define(replace(A, compensation=Compensation(retry=FEW))),
        "steps[0].compensation.retry.attempts_max",
        "COMPENSATION_TRIED_ONCE",
    ),
    "retriable that gives up": (
        define(A, retriable("b", "a", retry=MANY)),
        "steps[1].retry.attempts_max",
        "RETRIABLE_GIVES_UP",
    ),
    "pivot tried once": (define(pivot("a", retry=FEW)), "steps[0].retry.attempts_max", "PIVOT_GIVES_UP_EARLY"),
    "delay longer than the saga": (
        define(A, replace(B, delay_us=90 * SECOND_US), deadline_us=60 * SECOND_US),
        "steps[1].delay",
        "DELAY_BEYOND_DEADLINE",
    ),
    "timeout longer than the saga": (define(A, deadline_us=SECOND_US), "steps[0].timeout", "TIMEOUT_BEYOND_DEADLINE"),
    "timeout longer than the step": (
        define(replace(A, deadline_us=SECOND_US)),
        "steps[0].timeout",
        "TIMEOUT_BEYOND_DEADLINE",
    ),
    "rule after all rules": (
        define(replace(A, on_error=(ANY, ErrorRule(codes=("X",))))),
        "steps[0].on_error[1]",
        "RULE_UNREACHABLE",
    ),
    "retry without attempts": (
        define(replace(A, retry=FEW, on_error=(ErrorRule(then=OnError.RETRY),))),
        "steps[0].on_error[0]",
        "RULE_WITHOUT_ATTEMPTS",
    ),
    "output of a step that may be skipped": (
        define(replace(A, when="input.x == 1"), replace(B, input_template='{"n":"${steps.a.output.n}"}')),
        "steps[1].input_template",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step whose error is passed over": (
        define(replace(A, on_error=(replace(ANY, output_template=None),)), output_template='"${steps.a.output.n}"'),
        "output_template",
        "OUTPUT_MAY_BE_MISSING",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_what_is_probably_not_meant_is_said(what: str) -> None:
    definition, field, code = CASES[what]
    assert check(definition) == []
    (found,) = advise(definition)
    assert (found.field, found.code, found.severity) == (field, code, Severity.WARNING)


def test_what_is_sound_is_not_remarked_on() -> None:
    condition = "input.x == 1"
    sound = define(
        replace(A, when=condition, on_error=(ErrorRule(codes=("X",)), ANY)),
        replace(B, when=condition, input_template='["${steps.a.output.n}","${steps.a.output}"]', delay_us=1),
        pivot("c", "a", "b", retry=MANY),
        retriable("d", "c", retry=ALWAYS, input_template='"${steps.a.output == null ? 0 : steps.a.output.n}"'),
        deadline_us=60 * SECOND_US,
    )
    assert check(sound) == []
    assert advise(sound) == []
