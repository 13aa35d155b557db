"""Types and actions that the snippets share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import msgspec

from amends import Call, Participant


class Order(msgspec.Struct):
    id: str
    sku: str
    quantity: int
    price: int


@dataclass
class Reserve:
    sku: str
    quantity: int


@dataclass
class Hold:
    id: str
    shelf: int


@dataclass
class Charge:
    amount: int
    hold_id: str


@dataclass
class Receipt:
    payment_id: str


class Parcel(TypedDict):
    order_id: str
    weight: int


inventory = Participant("inventory")
payment = Participant("payment")


@inventory.action
async def reserve(request: Reserve, call: Call) -> Hold:
    return Hold(request.sku, 1)


@reserve.compensation
async def release(request: Reserve, done: Hold | None, call: Call) -> None: ...


@payment.action
def charge(request: Charge) -> Receipt:
    return Receipt(request.hold_id)


@charge.compensation
def refund(request: Charge, done: Receipt | None) -> None: ...


validate = Participant("shop").declare("validate", Order)
ship = Participant("shipping").declare("ship", Parcel, Receipt)
