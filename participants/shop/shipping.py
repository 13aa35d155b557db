"""The participant that sends parcels, and calls them back. It serves no address in Atlantis."""

from __future__ import annotations

from dataclasses import dataclass

from amends.call import Call
from amends.errors import Refused
from amends.participant import Participant
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


@shipping.action
def ship(request: Ship, call: Call) -> Shipment:
    """Send the goods of a hold to an address."""

    def send(book: Book) -> Shipment:
        if not request.address.strip() or UNSERVED.casefold() in request.address.casefold():
            raise Refused("ADDRESS_NOT_SERVED", f"no carrier goes to {request.address or 'an empty address'}")
        number = book.enter("shipped", request.payment_id, 1)
        return Shipment(id=f"S-{number}", payment_id=request.payment_id, tracking=f"TR-{number:06}")

    shipment = ledger.execute(call.key, Shipment, send)
    call.relate("carrier", shipment.tracking)
    return shipment


@ship.compensation
def recall(request: Ship, done: Shipment | None, call: Call) -> None:
    ledger.compensate(call.execute_key, Shipment, _call_back)


def _call_back(book: Book, shipment: Shipment) -> None:
    book.enter("recalled", shipment.payment_id, -1)
