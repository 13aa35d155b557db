"""Sagas as their authors write them, and the definitions that these become."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from google.protobuf import duration_pb2

from amends import (
    NOT_NEEDED,
    PIVOT,
    RETRIABLE,
    Backoff,
    Compensation,
    DefinitionError,
    Kind,
    OnCompensationFailure,
    Participant,
    Retry,
    Saga,
    Step,
)
from amends.payloads import json_schema
from amends.v1 import definition_pb2


@dataclass
class Order:
    id: str
    sku: str
    amount: int


@dataclass
class Reserve:
    sku: str


@dataclass
class Hold:
    id: str


@dataclass
class Charge:
    amount: int
    hold_id: str


@dataclass
class Receipt:
    payment_id: str


SHOP = Participant("shop")
reserve = SHOP.declare("reserve", Reserve, Hold, compensation=True)
charge = SHOP.declare("charge-card", Charge, Receipt, compensation=True)
look = SHOP.declare("look", Order, Hold)
tell = SHOP.declare("tell", Order)


def written_order() -> Saga[Order, Receipt]:
    order = Saga(
        "order",
        input=Order,
        output=Receipt,
        deadline=timedelta(minutes=5),
        on_compensation_failure=OnCompensationFailure.CONTINUE,
        description="Sells.",
    )
    hold = order.step(reserve, Reserve(order.input.sku), timeout=2.5)
    paid = order.step(
        charge,
        Charge(order.input.amount, hold.output.id),
        id="pay",
        retry=Retry(attempts=5, interval=0.1, interval_max=3, backoff=Backoff.LINEAR, factor=1.5, jitter=0.2),
        deadline=60,
        compensation=Compensation(arguments={"hold": hold.output}, retry=Retry(attempts=-1), timeout=7),
    )
    order.step(look, compensation=NOT_NEEDED)
    order.step(tell, order.input, kind=RETRIABLE)
    order.returns(Receipt(paid.output.payment_id))
    return order


def test_a_definition_says_all_that_was_written() -> None:
    assert written_order().definition() == definition_pb2.Definition(
        name="order",
        description="Sells.",
        deadline=duration_pb2.Duration(seconds=300),
        on_compensation_failure=definition_pb2.ON_COMPENSATION_FAILURE_CONTINUE,
        output_template='{"payment_id":"${steps.pay.output.payment_id}"}',
        input_schema=json_schema(Order),
        steps=[
            definition_pb2.StepDefinition(
                id="reserve",
                participant="shop",
                action="reserve",
                kind=definition_pb2.STEP_KIND_COMPENSATABLE,
                compensation=definition_pb2.Compensation(),
                input_template='{"sku":"${input.sku}"}',
                timeout=duration_pb2.Duration(seconds=2, nanos=500_000_000),
                output_schema=json_schema(Hold),
            ),
            definition_pb2.StepDefinition(
                id="pay",
                participant="shop",
                action="charge-card",
                kind=definition_pb2.STEP_KIND_COMPENSATABLE,
                compensation=definition_pb2.Compensation(
                    template='{"hold":"${steps.reserve.output}"}',
                    retry=definition_pb2.RetryPolicy(attempts_max=-1),
                    timeout=duration_pb2.Duration(seconds=7),
                ),
                after=["reserve"],
                input_template='{"amount":"${input.amount}","hold_id":"${steps.reserve.output.id}"}',
                retry=definition_pb2.RetryPolicy(
                    attempts_max=5,
                    interval=duration_pb2.Duration(nanos=100_000_000),
                    interval_max=duration_pb2.Duration(seconds=3),
                    backoff=definition_pb2.BACKOFF_LINEAR,
                    factor=1.5,
                    jitter=0.2,
                ),
                deadline=duration_pb2.Duration(seconds=60),
                output_schema=json_schema(Receipt),
            ),
            definition_pb2.StepDefinition(
                id="look",
                participant="shop",
                action="look",
                kind=definition_pb2.STEP_KIND_COMPENSATABLE,
                compensation=definition_pb2.Compensation(not_needed=True),
                after=["pay"],
                output_schema=json_schema(Hold),
            ),
            definition_pb2.StepDefinition(
                id="tell",
                participant="shop",
                action="tell",
                kind=definition_pb2.STEP_KIND_RETRIABLE,
                after=["look"],
                input_template='"${input}"',
            ),
        ],
    )


def test_building_again_gives_an_equal_definition_that_is_not_shared() -> None:
    order = written_order()
    first = order.definition()
    assert first.SerializeToString(deterministic=True) == order.definition().SerializeToString(deterministic=True)
    assert first.SerializeToString(deterministic=True) == written_order().definition().SerializeToString(
        deterministic=True
    )
    first.steps[0].id = "changed"
    assert order.definition().steps[0].id == "reserve"


def test_sagas_can_be_written_without_types_or_code() -> None:
    order = Saga("order")
    hold = order.step("inventory/reserve.now", {"sku": order.input["sku"], "to": order.input.customer[0]})
    order.step("payment/charge", {"hold": hold.output["id"]}, compensation=NOT_NEEDED)
    order.step("shipping/ship", kind=PIVOT)
    order.returns({"hold": hold.output})
    definition = order.definition()
    assert [(step.id, step.participant, step.action) for step in definition.steps] == [
        ("reserve_now", "inventory", "reserve.now"),
        ("charge", "payment", "charge"),
        ("ship", "shipping", "ship"),
    ]
    assert json.loads(definition.steps[0].input_template) == {"sku": "${input.sku}", "to": "${input.customer[0]}"}
    assert definition.steps[0].HasField("compensation")
    assert not definition.steps[2].HasField("compensation")
    assert definition.steps[2].input_template == ""
    assert definition.output_template == '{"hold":"${steps.reserve_now.output}"}'


def test_steps_follow_one_another_unless_they_say_otherwise() -> None:
    order = Saga("order")
    first = order.step("a/a")
    second = order.step("a/b")
    order.step("a/c", after=[])
    order.step("a/d")
    order.step("a/e", after=[first, second, first])
    assert order_of(order) == {"a": [], "b": ["a"], "c": [], "d": ["c"], "e": ["a", "b"]}


def test_parallel_steps_start_together_and_are_joined() -> None:
    order = Saga("order")
    order.step("a/a")
    with order.parallel():
        b = order.step("a/b")
        order.step("a/c")
        order.step("a/d", after=[b])
    order.step("a/e")
    with order.parallel():
        pass
    order.step("a/f")
    assert order_of(order) == {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["c", "d"], "f": ["e"]}


def test_parallel_blocks_do_not_nest() -> None:
    order = Saga("order")
    with order.parallel(), pytest.raises(DefinitionError, match="cannot be nested"), order.parallel():
        raise AssertionError("never gets here")


def test_a_none_request_is_a_request() -> None:
    order = Saga("order")
    order.step("a/a", None)
    assert order.definition().steps[0].input_template == "null"


def test_names_of_steps_are_unique_in_the_saga() -> None:
    order = Saga("order")
    order.step("a/a")
    with pytest.raises(DefinitionError, match=r"There is a step 'a' already: give this one another name by id="):
        order.step("b/a")
    order.step("b/a", id="again")
    assert list(order_of(order)) == ["a", "again"]


@pytest.mark.parametrize("name", ["", "1a", "a b", "ä", "a" * 129, "a/b", "_a", "a\n"])
def test_names_that_no_orchestrator_takes_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        Saga(name)
    with pytest.raises(DefinitionError):
        Saga("order").step(f"{name}/a")
    with pytest.raises(DefinitionError):
        Saga("order").step("a/a", id=name or "-")


def test_longest_names_are_taken() -> None:
    order = Saga("a" * 128)
    order.step("a/b", id="b" * 64)
    with pytest.raises(DefinitionError, match="cannot name a step"):
        order.step("a/b", id="b" * 65)


def test_an_action_without_code_is_named_with_its_participant() -> None:
    with pytest.raises(DefinitionError, match="'participant/action'"):
        Saga("order").step("reserve")


def test_a_compensatable_step_says_how_it_is_undone() -> None:
    order = Saga("order", input=Order)
    with pytest.raises(
        DefinitionError, match=r"shop/look has no compensation: write one, or say compensation=NOT_NEED"
    ):
        order.step(look)
    with pytest.raises(DefinitionError, match="shop/look has no compensation"):
        order.step(look, compensation=Compensation(timeout=1))
    with pytest.raises(DefinitionError, match="'look' is a PIVOT: it cannot have a compensation"):
        order.step(look, kind=PIVOT, compensation=Compensation())
    with pytest.raises(DefinitionError, match="has no steps"):
        order.definition()


def test_a_step_uses_only_what_is_done_before() -> None:
    order = Saga("order", input=Order)
    hold = order.step(reserve, Reserve("a"))
    with pytest.raises(DefinitionError, match=r"pay: steps.reserve.output.id is used, but the step 'reserve' does not"):
        order.step(charge, Charge(1, hold.output.id), id="pay", after=[])
    with pytest.raises(DefinitionError, match="'reserve' does not run before"):
        order.step(reserve, Reserve("a"), id="b", after=[], compensation=Compensation(arguments=hold.output))
    order.step(look, compensation=NOT_NEEDED)
    order.step(charge, Charge(1, hold.output.id))  # done before, though not the step right before


def test_the_arguments_of_a_compensation_cannot_use_the_output_of_their_own_step_which_may_have_none() -> None:
    order = Saga("order")
    own: Step[object] = Step(order, "a", object)
    with pytest.raises(DefinitionError, match=r"a: compensation: steps.a.output is used"):
        order.step("a/a", compensation=Compensation(arguments=own.output))


def test_values_of_another_saga_are_refused() -> None:
    one, other = Saga("one", input=Order), Saga("other", input=Order)
    step = other.step(look, kind=Kind.PIVOT)
    with pytest.raises(DefinitionError, match=r"reserve: input.sku belongs to another saga"):
        one.step(reserve, Reserve(other.input.sku))
    with pytest.raises(DefinitionError, match="belongs to another saga"):
        one.step(look, kind=Kind.PIVOT, after=[step])


def test_a_declared_output_is_returned_once() -> None:
    order = Saga("order", input=Order, output=Hold)
    held = order.step(reserve, Reserve("a"))
    with pytest.raises(DefinitionError, match=r"declares an output: say what it is by returns"):
        order.definition()
    order.returns(held.output)
    with pytest.raises(DefinitionError, match="has a result already"):
        order.returns(held.output)
    assert order.definition().output_template == '"${steps.reserve.output}"'


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retry(attempts=0),
        lambda: Retry(attempts=-2),
        lambda: Retry(interval=0),
        lambda: Retry(interval=timedelta(seconds=-1)),
        lambda: Retry(interval_max=float("inf")),
        lambda: Retry(factor=0.5),
        lambda: Retry(factor=float("nan")),
        lambda: Retry(jitter=1.1),
        lambda: Saga("order", deadline=0),
        lambda: Saga("order").step("a/a", timeout=-1),
        lambda: Saga("order").step("a/a", deadline=0),
        lambda: Saga("order").step("a/a", compensation=Compensation(timeout=0)),
    ],
)
def test_values_out_of_range_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError):
        wrong()


def test_a_refused_step_leaves_no_trace() -> None:
    order = Saga("order", input=Order)
    order.step(reserve, Reserve("a"))
    before = order.definition()
    with pytest.raises(DefinitionError):
        order.step(charge, Charge(1, "a"), id="no id")
    with pytest.raises(TypeError):
        order.step(charge, Charge(1, "a"), retries=3)  # type: ignore[call-overload]
    assert order.definition() == before
    order.step(charge, Charge(1, "a"))
    assert order_of(order)["charge_card"] == ["reserve"]


def order_of(saga: Saga[object, object] | Saga[Order, dict[str, object]]) -> dict[str, list[str]]:
    return {step.id: list(step.after) for step in saga.definition().steps}


@pytest.mark.parametrize(("seconds", "told"), [(1e-10, "longer than nothing"), (1e15, "at most 315576000000 seconds")])
def test_times_that_the_wire_cannot_hold_are_refused(seconds: float, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        Retry(interval=seconds)
