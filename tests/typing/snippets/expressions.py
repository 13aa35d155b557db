"""Expressions, as type checkers see them."""

from __future__ import annotations

from typing import assert_type

from shop import Charge, Order, Receipt, Reserve

from amends import Saga
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
assert_type(present(order.input.sku), bool)

Reserve(sku=order.input.price * 2, quantity=1)  # error: a number in place of a text
Charge(amount=order.input.price / 2, hold_id="a")  # error: a float in place of an int
Charge(amount=order.input.sku + "a", hold_id="a")  # error: a text in place of a number
_ = order.input.price + order.input.sku  # error: no such operator
_ = order.input.sku > 1  # error: not comparable
Reserve(sku=if_else(order.input.price > 1, 1, 2), quantity=1)  # error: a choice of another type
_ = if_else(order.input.price, 1, 2)  # error: no condition
_ = length(order.input.price)  # error: a number has no length
