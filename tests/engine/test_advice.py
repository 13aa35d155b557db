"""Warnings: each for what it is for, and none for what is sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amends_server.engine.checks.advice import advise
from amends_server.engine.checks.problem import Severity
from amends_server.engine.checks.validation import check
from amends_server.engine.definition import Compensation, Definition, ErrorRule, OnError
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry
from tests.engine.build import compensatable, define, pivot, retriable

FEW, MANY, ALWAYS = Retry(attempts_max=1), Retry(attempts_max=5), Retry(attempts_max=ENDLESS)
UNDO = Compensation(retry=MANY)
A = compensatable("a", retry=MANY, compensation=UNDO)
B = compensatable("b", "a", retry=MANY, compensation=UNDO)
NOTE = compensatable("n", retry=MANY, compensation=Compensation(not_needed=True))
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
    "retriable with a deadline": (
        define(A, retriable("b", "a", retry=ALWAYS, deadline_us=90 * SECOND_US)),
        "steps[1].deadline",
        "RETRIABLE_GIVES_UP",
    ),
    "pivot with a short deadline": (
        define(pivot("a", retry=MANY, deadline_us=SECOND_US)),
        "steps[0].deadline",
        "PIVOT_GIVES_UP_EARLY",
    ),
    "pivot tried once": (define(pivot("a", retry=FEW)), "steps[0].retry.attempts_max", "PIVOT_GIVES_UP_EARLY"),
    "delay longer than the saga": (
        define(A, replace(B, delay_us=90 * SECOND_US), deadline_us=60 * SECOND_US),
        "steps[1].delay",
        "DELAY_BEYOND_DEADLINE",
    ),
    "timeout longer than the saga": (define(A, deadline_us=SECOND_US), "steps[0].timeout", "TIMEOUT_BEYOND_DEADLINE"),
    "timeout longer than the step": (
        define(replace(A, deadline_us=SECOND_US, timeout_us=2 * SECOND_US)),
        "steps[0].timeout",
        "TIMEOUT_BEYOND_DEADLINE",
    ),
    "rule after all rules": (
        define(replace(A, on_error=(ANY, ErrorRule(codes=("X",))))),
        "steps[0].on_error[1]",
        "RULE_UNREACHABLE",
    ),
    "rule after rules for its codes": (
        define(replace(A, on_error=(ErrorRule(codes=("X",)), ErrorRule(codes=("Y",)), ErrorRule(codes=("X", "Y"))))),
        "steps[0].on_error[2]",
        "RULE_UNREACHABLE",
    ),
    "rule after one under the same condition": (
        define(
            replace(
                A, on_error=(replace(ANY, when="error.data.n == 1"), ErrorRule(codes=("X",), when="error.data.n == 1"))
            )
        ),
        "steps[0].on_error[1]",
        "RULE_UNREACHABLE",
    ),
    "rule that would turn a retriable step back": (
        define(A, retriable("b", "a", retry=ALWAYS, on_error=(ErrorRule(codes=("X",)),))),
        "steps[1].on_error[0]",
        "RULE_WITHOUT_EFFECT",
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
    "output of a step that may be skipped, in an expression": (
        define(replace(A, when="input.x == 1"), replace(B, input_template='{"n":"${steps.a.output.n + 1}"}')),
        "steps[1].input_template",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step that may be skipped, in a condition": (
        define(replace(A, when="input.x == 1"), replace(B, when="steps.a.output.n > 0")),
        "steps[1].when",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step that may be skipped, where it is only asked for a field": (
        define(replace(A, when="input.x == 1"), replace(B, when="has(steps.a.output.n)")),
        "steps[1].when",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step whose error is passed over, under its condition": (
        define(
            replace(A, when="input.x == 1", on_error=(replace(ANY, output_template=None),)),
            replace(B, when="input.x == 1 && steps.a.output.n > 0"),
        ),
        "steps[1].when",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step that may be skipped, in a compensation": (
        define(
            replace(A, when="input.x == 1"),
            replace(B, compensation=replace(UNDO, template='{"n":"${steps.a.output.n}"}')),
        ),
        "steps[1].compensation.template",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of the step itself, in its compensation": (
        define(replace(A, compensation=replace(UNDO, template='{"n":"${steps.a.output.n}"}')), B),
        "steps[0].compensation.template",
        "ARGUMENTS_MAY_BE_MISSING",
    ),
    "output of the step itself, in an expression of its compensation, under its condition": (
        define(replace(A, when="input.x > 1", compensation=replace(UNDO, template='"${steps.a.output.n + 1}"')), B),
        "steps[0].compensation.template",
        "ARGUMENTS_MAY_BE_MISSING",
    ),
    "output of a step that may be skipped, in a rule": (
        define(
            replace(A, when="input.x == 1"),
            replace(B, on_error=(replace(ANY, output_template='"${steps.a.output.n}"'),)),
        ),
        "steps[1].on_error[0].continue_with.output_template",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "output of a step that may be skipped, in an expression of the output": (
        define(replace(A, when="input.x == 1"), output_template='"${steps.a.output.n * 2}"'),
        "output_template",
        "OUTPUT_MAY_BE_MISSING",
    ),
    "effect among others that nothing undoes": (
        define(A, replace(NOTE, after=("a",)), replace(B, after=("n",))),
        "steps[1].compensation.not_needed",
        "EFFECT_NOT_UNDONE",
    ),
    "effect before the pivot that nothing undoes": (
        define(A, replace(NOTE, after=("a",)), pivot("c", "n", retry=MANY)),
        "steps[1].compensation.not_needed",
        "EFFECT_NOT_UNDONE",
    ),
    "attempts without end while others are held": (
        define(A, replace(B, retry=ALWAYS)),
        "steps[1].deadline",
        "SLOW_WITHOUT_DEADLINE",
    ),
    "slow step before another": (
        define(replace(A, timeout_us=3_600 * SECOND_US), B),
        "steps[0].deadline",
        "SLOW_WITHOUT_DEADLINE",
    ),
    "slow pivot while others are held": (
        define(A, pivot("c", "a", retry=ALWAYS), deadline_us=60 * SECOND_US),
        "steps[1].deadline",
        "SLOW_WITHOUT_DEADLINE",
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
        pivot("c", "a", "b", retry=MANY, deadline_us=60 * SECOND_US),
        retriable("d", "c", retry=ALWAYS, input_template='"${steps.a.output == null ? 0 : steps.a.output.n}"'),
        deadline_us=60 * SECOND_US,
    )
    assert check(sound) == []
    assert advise(sound) == []


SOUND = {
    "an output that is looked for first": define(
        replace(A, when="input.x == 1"),
        replace(B, when="steps.a.output != null && has(steps.a.output.n) && steps.a.output.n > 0"),
    ),
    "an output that is there under the condition": define(
        replace(A, when="input.x == 1"), replace(B, when="(input.x == 1) && steps.a.output.n > 0")
    ),
    "rules for other codes, or under other conditions": define(
        replace(
            A,
            on_error=(
                replace(ANY, codes=("X",)),
                replace(ANY, codes=("X", "Y"), when="error.data.n == 1"),
                replace(ANY, codes=("X", "Y"), when="error.data.n == 2"),
                ErrorRule(codes=("X", "Z")),
            ),
        )
    ),
    "a check before effects": define(NOTE, replace(A, after=("n",))),
    "the last step": define(A, replace(NOTE, after=("a",))),
    "a typed output": define(A, replace(NOTE, after=("a",), output_schema="{}"), replace(B, after=("n",))),
    "an output that is read": define(
        A, replace(NOTE, after=("a",)), replace(B, after=("n",), when="steps.n.output == 1")
    ),
    "only retriable steps after it": define(A, replace(NOTE, after=("a",)), retriable("d", "n", retry=ALWAYS)),
    "alone": define(replace(A, retry=ALWAYS)),
    "a deadline of the step": define(A, replace(B, retry=ALWAYS, deadline_us=60 * SECOND_US)),
    "a deadline of the saga": define(A, replace(B, retry=ALWAYS), deadline_us=60 * SECOND_US),
    "the default timeout under a deadline": define(replace(A, deadline_us=SECOND_US)),
    "slow at the end": define(A, retriable("d", "a", retry=ALWAYS, timeout_us=3_600 * SECOND_US)),
}


@pytest.mark.parametrize("what", SOUND)
def test_what_is_meant_is_not_remarked_on(what: str) -> None:
    assert check(SOUND[what]) == []
    assert advise(SOUND[what]) == []
