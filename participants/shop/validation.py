"""The participant that checks an order and says its price. It changes nothing, so there is nothing to undo."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from participants.ledger import Book, Ledger

PRICES = {"tea": 10, "mug": 25, "pot": 60}
QUANTITY_MAX = 1_000_000  # above it something is wrong with the order, and amounts could overflow

validation = Participant("validation")
ledger = Ledger()


@dataclass(frozen=True, slots=True)
class Validate:
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Quote:
    amount: int


@validation.action(barrier=ledger.barrier)
def validate(request: Validate, call: Call, tx: Connection) -> Quote:
    """Check an order and say its price."""
    book = Book(tx, call.key)
    price = book.amount(request.sku)
    if price is None:
        raise Refused("UNKNOWN_SKU", f"the shop does not sell {request.sku}")
    if not 0 < request.quantity <= QUANTITY_MAX:
        raise Refused("INVALID_QUANTITY", f"the quantity must be from 1 to {QUANTITY_MAX}, not {request.quantity}")
    book.enter("quoted", request.sku, 0)
    return Quote(amount=price * request.quantity)
