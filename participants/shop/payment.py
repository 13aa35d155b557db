"""The participant that keeps the customers' balances: a price is charged, and refunded."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from participants.ledger import Book, Ledger

BALANCES = {"ada": 1000, "bob": 500, "cyd": 200}

payment = Participant("payment")
ledger = Ledger()


@dataclass(frozen=True, slots=True)
class Charge:
    customer: str
    amount: int
    hold_id: str


@dataclass(frozen=True, slots=True)
class Payment:
    id: str
    customer: str
    amount: int


@payment.action(barrier=ledger.barrier)
def charge(request: Charge, call: Call, tx: Connection) -> Payment:
    """Take the price from a customer's balance."""
    book = Book(tx, call.key)
    balance = book.amount(request.customer)
    if balance is None:
        raise Refused("UNKNOWN_CUSTOMER", f"there is no customer {request.customer}")
    if request.amount <= 0:
        raise Refused("INVALID_AMOUNT", f"the amount must be positive, not {request.amount}")
    if balance < request.amount:
        raise Refused("INSUFFICIENT_FUNDS", f"{request.amount} due, {request.customer} has {balance}")
    number = book.enter("charged", request.customer, -request.amount)
    return Payment(id=f"PAY-{number}", customer=request.customer, amount=request.amount)


@charge.compensation
def refund(request: Charge, done: Payment, call: Call, tx: Connection) -> None:
    Book(tx, call.execute_key).enter("refunded", done.customer, done.amount)
