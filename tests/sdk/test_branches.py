"""Conditions, rules for errors and requirements in sagas, and the definitions that these become."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from amends import ERROR, NOT_NEEDED, PIVOT, DefinitionError, Participant, Saga, on
from amends.expressions import if_else, present
from amends.v1 import definition_pb2
from amends_server.convert.definition import diagnose
from amends_server.engine.checks.problem import Severity


@dataclass
class Customer:
    name: str
    email: str | None = None


@dataclass
class Order:
    amount: int
    gift: bool
    customer: Customer


@dataclass
class Hold:
    id: str


SHOP = Participant("shop")
act = SHOP.declare("act", Order, Hold, compensation=True)


def steps_of(saga: Saga[Any, Any]) -> dict[str, definition_pb2.StepDefinition]:
    """The steps of a saga that orchestrators find nothing wrong with."""
    definition = saga.definition()
    _, problems = diagnose(definition)
    assert [each for each in problems if each.severity is Severity.ERROR] == []
    return {step.id: step for step in definition.steps}


def after(saga: Saga[Any, Any]) -> dict[str, list[str]]:
    return {name: list(step.after) for name, step in steps_of(saga).items()}


def whens(saga: Saga[Any, Any]) -> dict[str, str]:
    return {name: step.when for name, step in steps_of(saga).items()}


def new() -> Saga[Order, dict[str, object]]:
    return Saga("order", input=Order)


def test_a_step_may_have_a_condition() -> None:
    order = new()
    order.step(act, when=order.input.amount > 100)
    order.step(act, id="b", when=order.input.gift)
    assert whens(order) == {"act": "input.amount > 100", "b": "input.gift"}


def test_g53_branches_run_by_the_first_condition_that_holds_and_are_joined() -> None:
    order = new()
    order.step(act, id="first")
    with order.when(order.input.amount > 100):
        order.step(act, id="a1")
        order.step(act, id="a2", when=order.input.gift)
    with order.otherwise(order.input.amount > 50):
        order.step(act, id="b")
    with order.otherwise():
        order.step(act, id="c1")
        order.step(act, id="c2")
    order.step(act, id="last")
    assert whens(order) == {
        "first": "",
        "a1": "input.amount > 100",
        "a2": "input.amount > 100 && input.gift",
        "b": "!(input.amount > 100) && input.amount > 50",
        "c1": "!(input.amount > 100) && !(input.amount > 50)",
        "c2": "!(input.amount > 100) && !(input.amount > 50)",
        "last": "",
    }
    assert after(order) == {
        "first": [], "a1": ["first"], "a2": ["a1"], "b": ["first"], "c1": ["first"], "c2": ["c1"],
        "last": ["a2", "b", "c2"],
    }  # fmt: skip


def test_branches_nest_and_may_hold_steps_that_run_at_the_same_time() -> None:
    order = new()
    with order.when(order.input.gift | (order.input.amount > 9)):
        order.step(act, id="a")
        with order.when(order.input.amount > 100):
            order.step(act, id="b")
        with order.otherwise(), order.parallel():
            order.step(act, id="c")
            order.step(act, id="d")
        order.step(act, id="e")
    order.step(act, id="f")
    outer = "input.gift || input.amount > 9"
    assert whens(order) == {
        "a": outer,
        "b": f"({outer}) && input.amount > 100",
        "c": f"({outer}) && !(input.amount > 100)",
        "d": f"({outer}) && !(input.amount > 100)",
        "e": outer,
        "f": "",
    }
    assert after(order) == {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"], "f": ["e"]}


def test_branches_may_run_beside_other_steps() -> None:
    order = new()
    order.step(act, id="a")
    with order.parallel():
        order.step(act, id="b")
        with order.when(order.input.gift):
            order.step(act, id="c")
            order.step(act, id="d")
        with order.otherwise():
            order.step(act, id="e")
    order.step(act, id="f")
    assert after(order) == {"a": [], "b": ["a"], "c": ["a"], "d": ["c"], "e": ["a"], "f": ["b", "d", "e"]}


def test_an_empty_branch_changes_nothing() -> None:
    order = new()
    order.step(act, id="a")
    with order.when(order.input.gift):
        pass
    order.step(act, id="b")
    assert after(order) == {"a": [], "b": ["a"]}


def test_a_join_uses_the_output_of_the_branch_that_ran() -> None:
    order = new()
    with order.when(order.input.gift):
        a = order.step(act, id="a")
    with order.otherwise():
        b = order.step(act, id="b")
    order.returns({"id": if_else(present(a.output), a.output.id, b.output.id)})
    steps_of(order)
    assert json.loads(order.definition().output_template) == {
        "id": "${dyn(steps.a.output) != null ? steps.a.output.id : steps.b.output.id}"
    }


def test_otherwise_comes_directly_after_a_condition() -> None:
    order = new()
    with pytest.raises(DefinitionError, match="must come directly after"), order.otherwise():
        raise AssertionError("never gets here")
    with order.when(order.input.gift):
        order.step(act, id="a")
        with pytest.raises(DefinitionError, match="must come directly after"), order.otherwise():
            raise AssertionError("never gets here")
    order.step(act, id="b")
    with pytest.raises(DefinitionError, match="must come directly after"), order.otherwise():
        raise AssertionError("never gets here")
    with order.when(order.input.gift):
        pass
    with order.otherwise():
        pass
    with pytest.raises(DefinitionError, match="must come directly after"), order.otherwise(order.input.gift):
        raise AssertionError("never gets here")


def test_rules_say_what_to_do_with_business_errors() -> None:
    order = new()
    first = order.step(act, id="first")
    order.step(
        act,
        on_error=[
            on("OUT_OF_STOCK", "GONE").continue_with(Hold(first.output.id)),
            on("BUSY", when=ERROR.data["left"] > order.input.amount).retry(),
            on("BROKEN").compensate(),
            on(when=ERROR.participant == "shop").continue_with(Hold(ERROR.message + "!")),
        ],
    )
    rules = steps_of(order)["act"].on_error
    assert [list(rule.codes) for rule in rules] == [["OUT_OF_STOCK", "GONE"], ["BUSY"], ["BROKEN"], []]
    assert [rule.when for rule in rules] == ["", "error.data.left > input.amount", "", 'error.participant == "shop"']
    assert [rule.WhichOneof("action") for rule in rules] == ["continue_with", "retry", "compensate", "continue_with"]
    assert rules[0].continue_with.output_template == '{"id":"${steps.first.output.id}"}'
    assert rules[3].continue_with.output_template == '{"id":"${error.message + \\"!\\"}"}'


def test_the_error_of_a_handled_step_can_be_looked_at() -> None:
    order = new()
    held = order.step(act, on_error=[on("GONE").continue_with(Hold("none"))])
    order.step(act, id="next", when=present(held.error) & (held.error.code == "GONE"))
    assert whens(order)["next"] == 'dyn(steps.act.error) != null && steps.act.error.code == "GONE"'


def test_requirements_are_paths() -> None:
    order = new()
    held = order.step(act)
    order.step(act, id="b", requires=[order.input.customer.email, held.output.id], delay=1.5)
    step = steps_of(order)["b"]
    assert list(step.requires) == ["input.customer.email", "steps.act.output.id"]
    assert (step.delay.seconds, step.delay.nanos) == (1, 500_000_000)


def test_schemas_of_the_types_go_with_the_definition() -> None:
    order = new()
    order.step(act)
    order.step(SHOP.declare("tell", Order), kind=PIVOT)
    order.step("shop/any", id="any", kind=PIVOT, after=[])
    definition = order.definition()
    assert set(json.loads(definition.input_schema)["$defs"]) == {"Order", "Customer"}
    assert [bool(step.output_schema) for step in definition.steps] == [True, False, False]
    assert Saga("order").input is not None


OTHER = Saga("other", input=Order)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda o, _: o.step(act, id="b", when=OTHER.input.gift), "b: input.gift belongs to another saga"),
        (lambda o, a: o.step(act, id="b", after=[], when=a.output.id == "x"), "does not run before"),
        (lambda o, a: o.step(act, id="b", after=[], requires=[a.output.id]), "does not run before"),
        (lambda o, _: o.step(act, id="b", requires=["input.x"]), "'input.x' is no reference such as saga.input.name"),
        (lambda o, _: o.step(act, id="b", requires=[o.input.amount + 1]), "is no reference such as"),
        (lambda o, _: o.step(act, id="b", when=o.input.amount), "must be of true or false"),
        (lambda o, _: o.step(act, id="b", when=ERROR.code == "A"), "error.code is there in the rules of on_error only"),
        (lambda o, _: o.returns({"a": ERROR.code}), "returns: error.code is there in the rules of on_error only"),
        (lambda o, _: o.step(act, id="b", delay=0), "delay: 0 must be longer than nothing"),
        (
            lambda o, a: o.step(act, id="b", after=[], on_error=[on().continue_with(a.output)]),
            "b: on_error: steps.act.output is used",
        ),
        (
            lambda o, _: o.step(act, id="b", on_error=[on(when=OTHER.input.gift).retry()]),
            "b: on_error: input.gift belongs to another saga",
        ),
    ],
)
def test_what_is_not_there_is_refused(wrong: Callable[[Any, Any], object], told: str) -> None:
    order = new()
    held = order.step(act)
    with pytest.raises(DefinitionError, match=told):
        wrong(order, held)
    assert list(after(order)) == ["act"]


def test_a_condition_of_branches_is_checked_at_each_step() -> None:
    order = new()
    held = order.step(act, id="a", compensation=NOT_NEEDED)
    with order.when(held.output.id == "x"), pytest.raises(DefinitionError, match=r"b: steps.a.output.id is used"):
        order.step(act, id="b", after=[])
    with pytest.raises(DefinitionError, match="must be of true or false"), order.when(order.input.amount):  # type: ignore[arg-type]
        raise AssertionError("never gets here")
