"""The participant that keeps the stock: goods are reserved, and released again."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
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


@inventory.action(barrier=ledger.barrier)
def reserve(request: Reserve, call: Call, tx: Connection) -> Hold:
    """Take goods out of the stock."""
    book = Book(tx, call.key)
    stock = book.amount(request.sku)
    if stock is None:
        raise Refused("UNKNOWN_SKU", f"there is no {request.sku} in the stock")
    if request.quantity <= 0:
        raise Refused("INVALID_QUANTITY", f"the quantity must be positive, not {request.quantity}")
    if stock < request.quantity:
        raise Refused("OUT_OF_STOCK", f"{request.quantity} {request.sku} wanted, {stock} left")
    number = book.enter("reserved", request.sku, -request.quantity)
    return Hold(id=f"H-{number}", sku=request.sku, quantity=request.quantity)


@reserve.compensation
def release(request: Reserve, done: Hold, call: Call, tx: Connection) -> None:
    Book(tx, call.execute_key).enter("released", done.sku, done.quantity)
