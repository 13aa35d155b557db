"""The participant that keeps the stock: goods are reserved, and released again."""

from __future__ import annotations

from dataclasses import dataclass

from amends.call import Call
from amends.errors import Refused
from amends.participant import Participant
from participants.ledger import Book, Ledger

STOCK = {"tea": 100, "mug": 50, "pot": 25}

inventory = Participant("inventory")
ledger = Ledger()


@dataclass(frozen=True, slots=True)
class Reserve:
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Hold:
    id: str
    sku: str
    quantity: int


@inventory.action
def reserve(request: Reserve, call: Call) -> Hold:
    """Take goods out of the stock."""

    def take(book: Book) -> Hold:
        stock = book.amount(request.sku)
        if stock is None:
            raise Refused("UNKNOWN_SKU", f"there is no {request.sku} in the stock")
        if request.quantity <= 0:
            raise Refused("INVALID_QUANTITY", f"the quantity must be positive, not {request.quantity}")
        if stock < request.quantity:
            raise Refused("OUT_OF_STOCK", f"{request.quantity} {request.sku} wanted, {stock} left")
        number = book.enter("reserved", request.sku, -request.quantity)
        return Hold(id=f"H-{number}", sku=request.sku, quantity=request.quantity)

    return ledger.execute(call.key, Hold, take)


@reserve.compensation
def release(request: Reserve, done: Hold | None, call: Call) -> None:
    ledger.compensate(call.execute_key, Hold, _put_back)


def _put_back(book: Book, hold: Hold) -> None:
    book.enter("released", hold.sku, hold.quantity)
