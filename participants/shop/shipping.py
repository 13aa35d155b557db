"""The participant that sends parcels, and calls them back. It serves no address in Atlantis."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from participants.ledger import Book, Ledger

UNSERVED = "Atlantis"

shipping = Participant("shipping")
ledger = Ledger()


@dataclass(frozen=True, slots=True)
class Ship:
    address: str
    hold_id: str
    payment_id: str


@dataclass(frozen=True, slots=True)
class Shipment:
    id: str
    payment_id: str
    tracking: str


@shipping.action(barrier=ledger.barrier)
def ship(request: Ship, call: Call, tx: Connection) -> Shipment:
    """Send the goods of a hold to an address."""
    book = Book(tx, call.key)
    if not request.address.strip() or UNSERVED.casefold() in request.address.casefold():
        raise Refused("ADDRESS_NOT_SERVED", f"no carrier goes to {request.address or 'an empty address'}")
    number = book.enter("shipped", request.payment_id, 1)
    shipment = Shipment(id=f"S-{number}", payment_id=request.payment_id, tracking=f"TR-{number:06}")
    call.relate("carrier", shipment.tracking)
    return shipment


@ship.compensation
def recall(request: Ship, done: Shipment, call: Call, tx: Connection) -> None:
    Book(tx, call.execute_key).enter("recalled", done.payment_id, -1)
