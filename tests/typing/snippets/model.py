"""Expressions, branches, rules for errors and requirements, as type checkers see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_type

from shop import Charge, Hold, Order, Receipt, Reserve, charge, reserve, validate

from amends import (
    ERROR,
    NOT_NEEDED,
    BulkResult,
    Call,
    Client,
    Completion,
    InProgress,
    Participant,
    Saga,
    SagaStatus,
    SagaView,
    Step,
    on,
)
from amends.expressions import contains, if_else, length, not_, present, text

order = Saga("order", input=Order, output=Receipt)
assert_type(order.input.price * order.input.quantity, int)
assert_type(order.input.price / 2, float)
assert_type(order.input.price > 100, bool)
assert_type((order.input.price > 100) & (order.input.quantity > 1), bool)
assert_type(not_(order.input.price > 100), bool)
assert_type(order.input.sku + "-" + text(order.input.price), str)
assert_type(length(order.input.sku), int)
assert_type(contains(["a", "b"], order.input.sku), bool)
assert_type(if_else(order.input.price > 100, order.input.sku, "none"), str)

with order.when(order.input.price > 100):
    order.step(validate, when=order.input.sku == "a", compensation=NOT_NEEDED)
with order.otherwise(contains(order.input.sku, "a")):
    order.step(validate, id="again", requires=[order.input.sku, order.input.price], delay=1, compensation=NOT_NEEDED)
with order.otherwise():
    order.step("shop/anything", on_error=[on("X").continue_with({"a": 1}), on("Y").retry()])
hold = order.step(
    reserve,
    Reserve(sku=if_else(order.input.price > 1, order.input.sku, "b"), quantity=order.input.quantity * 2),
    on_error=[
        on("OUT_OF_STOCK").continue_with(Hold(id="none", shelf=0)),
        on("BUSY", when=ERROR.data["left"] > 0).retry(),
        on(when=ERROR.code == "X").compensate(),
    ],
)
assert_type(hold, Step[Hold])
assert_type(hold.error.code, str)
paid = order.step(charge, Charge(order.input.price * order.input.quantity, hold.output.id), when=present(hold.output))
order.returns(Receipt(payment_id=paid.output.payment_id))

desk = Participant("desk")


@desk.action
async def plan(request: Order, call: Call) -> Reserve:
    if request.price < 0:
        call.later(poll=1.5)
    elif request.price == 0:
        raise InProgress
    else:
        return Reserve(request.sku, 1)


planned = order.step(plan, compensation=NOT_NEEDED)
order.step(reserve, planned.output, id="planned")
order.step(charge, planned.output, id="wrong")  # error: the output of a local step where another type is wanted


async def control(client: Client, call: Call) -> None:
    async with client.hosting(desk) as address:
        assert_type(address, str)
    await client.start(order, Order("1", "a", 1, 2), at=datetime(2026, 1, 1, tzinfo=UTC))
    async for saga in client.list(status=SagaStatus.STUCK, running_longer_than=60):
        assert_type(saga, SagaView)
    assert_type(await client.retry_all(reason="r", limit=3, definition="order"), BulkResult)
    assert_type(await client.complete(call.completion, Hold("a", 1)), SagaView)
    await client.refuse(Completion.parse("x"), "NO")
    assert_type(await client.break_off(call, "BURNT"), SagaView)
    await client.start(order, Order("1", "a", 1, 2), at=3)  # error: no time
    await client.retry_all(definition="order")  # error: no reason
    await client.retry_all(reason="r", state="STUCK")  # error: no such filter
    client.list(status="STUCK")  # error: no status
    await client.complete("x", 1)  # error: a text in place of a completion
    client.hosting(plan)  # error: an action in place of a participant


Reserve(sku=order.input.price * 2, quantity=1)  # error: a number in place of a text
Charge(amount=order.input.price / 2, hold_id="a")  # error: a float in place of an int
Charge(amount=order.input.sku + "a", hold_id="a")  # error: a text in place of a number
_ = order.input.price + order.input.sku  # error: no such operator
_ = order.input.sku > 1  # error: not comparable
order.step(validate, id="w", when=order.input.price, compensation=NOT_NEEDED)  # error: no condition
order.step(validate, id="x", when="input.price > 1", compensation=NOT_NEEDED)  # error: a text in place of an expression
Reserve(sku=if_else(order.input.price > 1, 1, 2), quantity=1)  # error: a choice of another type
_ = if_else(order.input.price, 1, 2)  # error: no condition
_ = length(order.input.price)  # error: a number has no length
other = [on("A").continue_with(Receipt("a"))]
order.step(reserve, Reserve("a", 1), on_error=other)  # error: the output of another step
order.step(reserve, Reserve("a", 1), on_error=[on("A")])  # error: not said what to do
order.step(reserve, Reserve("a", 1), requires=order.input.price)  # error: no list
_ = ERROR.reason  # error: no such field
order.otherwise(order.input.sku)  # error: no condition
