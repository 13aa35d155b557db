"""The `order` saga: validate, reserve, charge, ship; or all of it undone."""

from __future__ import annotations

from dataclasses import dataclass

from amends.definition.builder import Saga
from amends.policies import NOT_NEEDED
from participants.shop.inventory import Reserve, reserve
from participants.shop.payment import Charge, charge
from participants.shop.shipping import Ship, ship
from participants.shop.validation import Validate, validate


@dataclass(frozen=True, slots=True)
class Order:
    customer: str
    sku: str
    quantity: int
    address: str


@dataclass(frozen=True, slots=True)
class Receipt:
    amount: int
    payment_id: str
    tracking: str


order = Saga("order", input=Order, output=Receipt, description="Sells goods to a customer and ships them.")
quote = order.step(validate, Validate(sku=order.input.sku, quantity=order.input.quantity), compensation=NOT_NEEDED)
hold = order.step(reserve, Reserve(sku=order.input.sku, quantity=order.input.quantity))
paid = order.step(charge, Charge(customer=order.input.customer, amount=quote.output.amount, hold_id=hold.output.id))
shipped = order.step(ship, Ship(address=order.input.address, hold_id=hold.output.id, payment_id=paid.output.id))
order.returns(Receipt(amount=quote.output.amount, payment_id=paid.output.id, tracking=shipped.output.tracking))
