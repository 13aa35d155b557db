"""A right data flow: nothing here is reported."""

from __future__ import annotations

from typing import assert_type

from shop import Charge, Hold, Order, Parcel, Receipt, Reserve, charge, reserve, ship, validate

from amends import NOT_NEEDED, PIVOT, Client, Retry, Saga, SagaHandle, Step

order = Saga("order", input=Order, output=Receipt, deadline=60)
assert_type(order, Saga[Order, Receipt])
assert_type(order.step(validate, compensation=NOT_NEEDED), Step[None])
order.step(validate, order.input, id="again", compensation=NOT_NEEDED)
with order.parallel():
    hold = order.step(reserve, Reserve(sku=order.input.sku, quantity=order.input.quantity))
assert_type(hold, Step[Hold])
assert_type(hold.output.shelf, int)
paid = order.step(charge, Charge(hold.output.shelf, hold.output.id), retry=Retry(attempts=5), after=[hold])
order.step(ship, Parcel(order_id=order.input.id, weight=1), kind=PIVOT, timeout=1.5)
order.step(ship, Parcel(order_id=paid.output.payment_id, weight=1), id="next", kind=PIVOT)
order.returns(Receipt(payment_id=paid.output.payment_id))

parcels = Saga("parcels", input=Parcel)
assert_type(parcels, Saga[Parcel, dict[str, object]])
assert_type(parcels.input["weight"], int)
parcels.step(ship, kind=PIVOT)

untyped = Saga("untyped")
got = untyped.step("inventory/reserve", {"sku": untyped.input["sku"]})
untyped.step("payment/charge", {"hold": got.output["id"]}, id="charge")
untyped.step(reserve, Reserve(untyped.input.sku, 1))


async def main() -> None:
    async with Client("localhost:7242", namespace="shop") as client:
        saga = await client.start(order, Order("1", "a", 1, 2), id="order-1", labels={"a": "b"})
        assert_type(saga, SagaHandle[Receipt])
        async for event in saga.watch(after=3):
            assert_type(event.sequence, int)
        assert_type(await saga.result(), Receipt)
        assert_type(await client.saga(order, "order-1").result(), Receipt)
        assert_type(await client.saga(None, "order-1").result(), object)
        assert_type(await (await client.start(parcels, Parcel(order_id="1", weight=2))).result(), dict[str, object])
        await client.start(untyped, {"sku": "a"})
        assert_type(await client.start("order", {"id": 1}), SagaHandle[object])
