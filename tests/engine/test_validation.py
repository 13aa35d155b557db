"""Each finding of `check` with its code and field, and that thousands of steps are checked fast enough."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from amends_server.engine.checks.problem import Severity
from amends_server.engine.checks.validation import STEPS_MAX, check
from amends_server.engine.definition import Compensation, Definition, Kind
from amends_server.engine.policy import ENDLESS, Retry
from tests.engine.build import compensatable, define, pivot, retriable

LARGE_CHECK_S_MAX = 5.0
"""A tenth of it is usual; what is quadratic takes minutes."""

NEEDED = Compensation()


def policy(**more: float | int) -> Definition:
    return define(compensatable("a", retry=replace(Retry(attempts_max=1), **more)))


@pytest.mark.parametrize(
    ("definition", "code", "field"),
    [
        (replace(define(compensatable("a")), name=""), "NAME_INVALID", "name"),
        (replace(define(compensatable("a")), name="1st"), "NAME_INVALID", "name"),
        (replace(define(compensatable("a")), name="a" * 129), "NAME_INVALID", "name"),
        (replace(define(compensatable("a")), name="a\n"), "NAME_INVALID", "name"),
        (define(), "STEPS_MISSING", "steps"),
        (define(*(compensatable(f"s{i}") for i in range(STEPS_MAX + 1))), "STEPS_TOO_MANY", "steps"),
        (define(compensatable("a"), deadline_us=0), "POLICY_INVALID", "deadline"),
        (define(compensatable("a"), compensatable("a")), "STEP_DUPLICATE", "steps[1].id"),
        (define(compensatable("")), "STEP_ID_INVALID", "steps[0].id"),
        (define(compensatable("a.b")), "STEP_ID_INVALID", "steps[0].id"),
        (define(compensatable("a/b")), "STEP_ID_INVALID", "steps[0].id"),
        (define(replace(compensatable("a"), participant="")), "PARTICIPANT_MISSING", "steps[0].participant"),
        (define(replace(compensatable("a"), action="")), "ACTION_MISSING", "steps[0].action"),
        (define(compensatable("a", "x")), "AFTER_INVALID", "steps[0].after[0]"),
        (define(compensatable("a", "a")), "AFTER_INVALID", "steps[0].after[0]"),
        (define(compensatable("a"), compensatable("b", "a", "a")), "AFTER_INVALID", "steps[1].after[1]"),
        (define(compensatable("a", timeout_us=0)), "POLICY_INVALID", "steps[0].timeout"),
        (define(compensatable("a", deadline_us=-1)), "POLICY_INVALID", "steps[0].deadline"),
        (policy(attempts_max=0), "POLICY_INVALID", "steps[0].retry.attempts_max"),
        (policy(attempts_max=-2), "POLICY_INVALID", "steps[0].retry.attempts_max"),
        (policy(interval_us=0), "POLICY_INVALID", "steps[0].retry.interval"),
        (policy(interval_max_us=-1), "POLICY_INVALID", "steps[0].retry.interval_max"),
        (policy(factor=0.5), "POLICY_INVALID", "steps[0].retry.factor"),
        (policy(factor=float("inf")), "POLICY_INVALID", "steps[0].retry.factor"),
        (policy(factor=float("nan")), "POLICY_INVALID", "steps[0].retry.factor"),
        (policy(jitter=-0.1), "POLICY_INVALID", "steps[0].retry.jitter"),
        (policy(jitter=1.1), "POLICY_INVALID", "steps[0].retry.jitter"),
        (policy(jitter=float("nan")), "POLICY_INVALID", "steps[0].retry.jitter"),
        (define(compensatable("a", compensation=None)), "COMPENSATION_MISSING", "steps[0].compensation"),
        (define(pivot("a", compensation=NEEDED)), "COMPENSATION_UNEXPECTED", "steps[0].compensation"),
        (define(retriable("a", compensation=NEEDED)), "COMPENSATION_UNEXPECTED", "steps[0].compensation"),
        (
            define(compensatable("a", compensation=Compensation(not_needed=True, template="1"))),
            "COMPENSATION_CONTRADICTORY",
            "steps[0].compensation",
        ),
        (
            define(compensatable("a", compensation=Compensation(retry=Retry(attempts_max=0)))),
            "POLICY_INVALID",
            "steps[0].compensation.retry.attempts_max",
        ),
        (
            define(compensatable("a", compensation=Compensation(timeout_us=0))),
            "POLICY_INVALID",
            "steps[0].compensation.timeout",
        ),
        (define(compensatable("a", "b"), compensatable("b", "a")), "CYCLE", "steps[0].after"),
        (define(pivot("p"), compensatable("a", "p")), "NO_WAY_BACK", "steps[1].kind"),
        (define(compensatable("a"), pivot("p")), "NO_WAY_BACK", "steps[0].kind"),
        (define(retriable("r"), compensatable("a", "r")), "NO_WAY_BACK", "steps[1].kind"),
        (define(retriable("r"), compensatable("a")), "NO_WAY_BACK", "steps[1].kind"),
        (define(pivot("p"), pivot("q", "p")), "NO_WAY_BACK", "steps[1].kind"),
        (define(pivot("p", when="input.a"), pivot("q", when="input.b")), "NO_WAY_BACK", "steps[1].kind"),
        (define(pivot("p", when="input.a"), pivot("q", "p", when="input.a")), "NO_WAY_BACK", "steps[1].kind"),
        (define(pivot("p", when="input.a"), pivot("q", when="!(input.a) ||")), "EXPRESSION_INVALID", "steps[1].when"),
        (define(compensatable("a", input_template="{")), "TEMPLATE_INVALID", "steps[0].input_template"),
        (define(compensatable("a", input_template='"${a + b}"')), "TEMPLATE_INVALID", "steps[0].input_template"),
        (
            define(compensatable("a", compensation=Compensation(template="NaN"))),
            "TEMPLATE_INVALID",
            "steps[0].compensation.template",
        ),
        (define(compensatable("a"), output_template="x"), "TEMPLATE_INVALID", "output_template"),
        (
            define(compensatable("a", input_template='"${steps.a.output}"')),
            "STEP_NOT_VISIBLE",
            "steps[0].input_template",
        ),
        (
            define(compensatable("a"), compensatable("b", input_template='"${steps.a.error}"')),
            "STEP_NOT_VISIBLE",
            "steps[1].input_template",
        ),
        (
            define(compensatable("a", compensation=Compensation(template='"${steps.x.output}"'))),
            "STEP_NOT_VISIBLE",
            "steps[0].compensation.template",
        ),
        (define(compensatable("a"), output_template='"${steps.x.output}"'), "STEP_NOT_VISIBLE", "output_template"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_finding_has_a_code_and_names_its_field(definition: Definition, code: str, field: str) -> None:
    problems = check(definition)
    assert (code, field) in {(p.code, p.field) for p in problems}
    assert all(p.severity is Severity.ERROR for p in problems)
    assert all(p.message.endswith(".") for p in problems)


@pytest.mark.parametrize(
    "definition",
    [
        define(compensatable("a")),
        define(retriable("a"), retriable("b")),
        define(pivot("p")),
        define(compensatable("a"), compensatable("b"), pivot("p", "a", "b"), retriable("r", "p"), retriable("q", "p")),
        define(pivot("p", "a"), compensatable("a")),
        define(
            compensatable("a"),
            pivot("p", "a", when="input.x"),
            retriable("s", "p", when="input.x && input.y"),
            compensatable("b", "a", when="!(input.x)"),
            pivot("q", "b", when="!(input.x)"),
            retriable("r", "s", "q"),
        ),
        define(compensatable("a", compensation=Compensation(not_needed=True))),
        define(compensatable("a", retry=Retry(attempts_max=ENDLESS, factor=1, jitter=0))),
        define(compensatable("a", compensation=Compensation(template='"${steps.a.output}"'))),
        define(
            compensatable("a"), compensatable("b", "a"), compensatable("c", "b", input_template='"${steps.a.output}"')
        ),
        define(compensatable("a"), output_template='{"a":"${steps.a.output.x}","id":"${saga.id}"}'),
    ],
)
def test_a_sound_definition_has_no_findings(definition: Definition) -> None:
    assert check(definition) == []


def test_all_findings_come_at_once() -> None:
    wrong = define(
        replace(compensatable("a b", compensation=None), participant=""), compensatable("b", "x", timeout_us=-1)
    )
    assert [problem.code for problem in check(replace(wrong, name="!"))] == [
        "NAME_INVALID",
        "STEP_ID_INVALID",
        "PARTICIPANT_MISSING",
        "COMPENSATION_MISSING",
        "AFTER_INVALID",
        "POLICY_INVALID",
    ]


def test_a_cycle_is_named_in_its_order_without_the_steps_around_it() -> None:
    problems = check(
        define(
            compensatable("first"),
            compensatable("a", "first", "c"),
            compensatable("b", "a"),
            compensatable("c", "b"),
            compensatable("last", "c"),
        )
    )
    assert len(problems) == 1
    named = problems[0].message.removeprefix("These steps wait for each other: ").removesuffix(".").split(" → ")
    assert named[0] == named[-1]
    assert "→".join(named) in {"a→b→c→a", "b→c→a→b", "c→a→b→c"}


def test_a_long_cycle_is_told_in_a_line() -> None:
    """The message goes into the trailers of an answer, which hold 8 KiB."""
    names = [f"step_number_{i}" for i in range(STEPS_MAX)]
    steps = [compensatable(name, names[i - 1]) for i, name in enumerate(names)]
    (problem,) = check(define(*steps))
    assert problem.code == "CYCLE"
    assert len(problem.message) < 1_000
    assert "…" in problem.message


def chain(count: int) -> Definition:
    return define(compensatable("s0"), *(compensatable(f"s{i}", f"s{i - 1}") for i in range(1, count)))


def chain_into_cycle(count: int) -> Definition:
    """Each step of the chain is found to be sound only after the one before it."""
    steps = chain(count).steps
    return define(*steps, compensatable("x", steps[-1].id, "y"), compensatable("y", "x"))


def joins(count: int) -> Definition:
    """A few steps that each name all others."""
    names = [f"s{i}" for i in range(count)]
    return define(*(compensatable(n) for n in names), *(compensatable(f"join{i}", *names) for i in range(20)))


@pytest.mark.parametrize(
    ("definition", "codes"),
    [
        (chain(STEPS_MAX), []),
        (define(*(compensatable(f"s{i}") for i in range(STEPS_MAX))), []),
        (define(*chain(STEPS_MAX - 1).steps, pivot("p", f"s{STEPS_MAX - 2}")), []),
        (chain_into_cycle(STEPS_MAX - 2), ["CYCLE"]),
        (joins(STEPS_MAX // 2), []),
        (define(*(replace(retriable(f"s{i}"), kind=Kind.RETRIABLE) for i in range(STEPS_MAX))), []),
    ],
    ids=["chain", "parallel", "pivot", "cycle", "joins", "retriable"],
)
def test_thousands_of_steps_are_checked_fast(definition: Definition, codes: list[str]) -> None:
    start_s = time.process_time()
    problems = check(definition)
    assert [problem.code for problem in problems] == codes
    assert time.process_time() - start_s < LARGE_CHECK_S_MAX
