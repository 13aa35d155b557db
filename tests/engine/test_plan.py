"""Plans: what they say of a failure is what the engine does, and branches that exclude each other are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amends_server.engine.checks.branches import needs_of
from amends_server.engine.checks.plan import Outcome, Plan, make_plans
from amends_server.engine.definition import Compensation, Definition, ErrorRule, OnError
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry
from tests.engine.build import compensatable, define, graph_of, pivot, retriable

BACK, STUCK, AGAIN, ON = Outcome.TURNS_BACK, Outcome.STUCK, Outcome.RETRIES, Outcome.GOES_ON
ALWAYS = Retry(attempts_max=ENDLESS)
ANY = ErrorRule(then=OnError.CONTINUE, output_template="1")
KIND = "input.kind == 'a && b'"

TRIP = define(
    compensatable("reserve"),
    compensatable("hotel", "reserve"),
    compensatable("car", "reserve"),
    compensatable("note", "hotel", "car", compensation=Compensation(not_needed=True)),
    pivot("pay", "note", retry=Retry(attempts_max=4)),
    retriable("mail", "pay", retry=ALWAYS),
    retriable("file", "pay"),
)


def plans(definition: Definition) -> dict[str, Plan]:
    return {plan.step: plan for plan in make_plans(graph_of(definition))}


def outcomes(definition: Definition) -> dict[str, tuple[Outcome, Outcome, int]]:
    return {step: (plan.if_refused, plan.if_unknown, plan.attempts_max) for step, plan in plans(definition).items()}


def undone(definition: Definition) -> dict[str, list[str]]:
    """For each step what is undone, with `?` after what is uncertain."""
    return {
        step: [f"{name}{'?' if maybe else ''}" for name, maybe in plan.undone]
        for step, plan in plans(definition).items()
    }


def test_each_step_has_a_plan_also_from_the_pivot_on() -> None:
    assert outcomes(TRIP) == {
        "reserve": (BACK, BACK, 1),
        "hotel": (BACK, BACK, 1),
        "car": (BACK, BACK, 1),
        "note": (BACK, BACK, 1),
        "pay": (BACK, STUCK, 4),
        "mail": (STUCK, AGAIN, ENDLESS),
        "file": (STUCK, STUCK, 1),
    }
    assert undone(TRIP) == {
        "reserve": ["reserve"],
        "hotel": ["car?", "hotel", "reserve"],
        "car": ["car", "hotel?", "reserve"],
        "note": ["car", "hotel", "reserve"],
        "pay": ["car", "hotel", "reserve"],
        "mail": [],
        "file": [],
    }


def test_rules_and_deadlines_decide_too() -> None:
    a = compensatable("a", retry=ALWAYS)
    assert outcomes(define(a))["a"] == (BACK, AGAIN, ENDLESS)
    assert outcomes(define(a, deadline_us=SECOND_US))["a"][1] is BACK
    assert outcomes(define(replace(a, deadline_us=SECOND_US)))["a"][1] is BACK
    assert outcomes(define(replace(a, on_error=(ErrorRule(then=OnError.RETRY),))))["a"][0] is AGAIN
    assert outcomes(define(replace(a, on_error=(ErrorRule(codes=("X",), then=OnError.CONTINUE),))))["a"][0] is BACK
    assert outcomes(define(replace(a, on_error=(ANY,))))["a"][0] is ON
    assert outcomes(define(retriable("r", on_error=(ANY,))))["r"][0] is ON
    late = define(pivot("p", retry=ALWAYS, deadline_us=SECOND_US), deadline_us=SECOND_US)
    assert outcomes(late)["p"] == (BACK, STUCK, ENDLESS)


def test_what_a_rule_may_pass_over_is_uncertain() -> None:
    definition = define(compensatable("a", on_error=(ANY,)), compensatable("b", "a"))
    assert undone(definition)["b"] == ["b", "a?"]


def test_a_branch_undoes_nothing_of_the_other() -> None:
    definition = define(
        compensatable("first"),
        compensatable("card", "first", when=KIND),
        compensatable("receipt", "card", when=f"({KIND}) && input.paper"),
        compensatable("bill", "first", when=f"!( {KIND} )"),
        compensatable("last", "receipt", "bill"),
    )
    assert undone(definition) == {
        "first": ["first"],
        "card": ["card", "first"],
        "receipt": ["receipt", "card", "first"],
        "bill": ["bill", "first"],
        "last": ["last", "receipt?", "bill?", "card?", "first"],
    }


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        ("input.a", "!input.a", True),
        ("input.a && input.b", "!(input.a && input.b)", True),
        ("input.a && input.b && input.c", "!(input.b && input.a)", True),
        ("!input.a && input.b", "!(!input.a)", True),
        ("!input.a && input.b", "!input.a && !input.b", True),
        ("input.a", "!input.b", False),
        ("input.a", "!(input.a && input.b)", False),
        ("input.a || input.b", "!input.a", False),
        ("input.a || input.b", "!(input.a||input.b)", True),
        ("input.a ? input.b : input.c", "!input.a", False),
        ("input.a in [true]", "!input.a in [true]", False),
        ("input.a == '!x && y'", "!(input.a == '!x && y')", True),
        ("input.a == ' '", "!(input.a == '  ')", False),
    ],
)
def test_conditions_that_exclude_each_other(one: str, other: str, excluded: bool) -> None:
    a, b = needs_of(one), needs_of(other)
    assert (a.exclude(b), b.exclude(a)) == (excluded, excluded)
