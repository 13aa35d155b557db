"""Wrong data flows: each marked line is reported, and no other."""

from __future__ import annotations

from typing import assert_type

from shop import Charge, Order, Parcel, Receipt, Reserve, charge, reserve, ship, validate

from amends import Client, Retry, Saga

order = Saga("order", input=Order, output=Receipt)
hold = order.step(reserve, Reserve(order.input.sku, 1))
paid = order.step(charge, Charge(order.input.price, hold.output.id))

Reserve(sku=order.input.quantity, quantity=1)  # error: a field of another type
Charge(amount=1, hold_id=hold.output.shelf)  # error: a part of an output that is of another type
Charge(amount=1, hold_id=hold.output)  # error: the whole where a part is wanted
order.step(reserve, Charge(1, "a"))  # error: the request of another action
order.step(ship, Parcel(order_id="a"))  # error: a key is missing
order.step(ship, Parcel(order_id=order.input.price, weight=1))  # error: a value of another type
order.step(charge)  # error: the input of the saga is not what the action takes
order.step(charge, order.input)  # error: neither is it here
order.step(reserve, Reserve("a", 1), retries=3)  # error: no such option
order.step(reserve, Reserve("a", 1), retry=3)  # error: no retry policy
order.step(reserve, Reserve("a", 1), kind="PIVOT")  # error: no kind
order.step(reserve, Reserve("a", 1), after=["reserve"])  # error: an id in place of a step
_ = order.input.skew  # error: no such field
_ = hold.output.number  # error: no such output
paid.id = "a"  # error: read only
order.returns(hold.output)  # error: not the declared output
order.returns(Receipt(hold.output.shelf))  # error: a field of another type
parcels = Saga("parcels", input=Parcel)
_ = parcels.input["length"]  # error: no such key
parcels.step(validate)  # error: another input
Saga("order", input=Order(id="a", sku="a", quantity=1, price=1))  # error: a value in place of a type
Saga(order)  # error: no name
Retry(attempts="5")  # error: no number


async def main() -> None:
    async with Client("localhost:7242") as client:
        await client.start(order, Reserve("a", 1))  # error: another input
        await client.start(order, {"id": "a"})  # error: not the declared type
        saga = await client.start(order, Order("1", "a", 1, 2))
        assert_type(await saga.result(), Order)  # error: it is a Receipt
        _ = (await saga.result()).hold_id  # error: no such field of the result
        await client.saga(order)  # error: which one
        await client.resolve("a", "b", "SKIPPED", reason="c")  # error: no resolution
