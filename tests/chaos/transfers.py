"""The banks of the chaos, and the sagas that move money from one bank's database to another's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from sqlite3 import Connection

from amends import Saga
from amends.action import Action
from amends.participant.call import Call
from amends.participant.participant import Participant
from amends.policies import PIVOT, RETRIABLE, Compensation, Retry
from participants.bank.accounts import Credit, Debit, Posting, deposit, reverse, withdraw
from participants.bank.saga import Confirmation, Transfer
from participants.ledger import Book, Ledger

BANKS = ("north", "south", "east")
ACCOUNTS = ("a", "b", "c", "d")
BALANCE = 1_000
NOWHERE = "nowhere"

TIMEOUT_S = 1.0
A_FEW = Retry(attempts=4, interval=0.05, interval_max=0.5)
"""Of an action that can be undone: few enough that faults last longer, and the saga turns back."""

WITHOUT_END = Retry(attempts=-1, interval=0.05, interval_max=0.5)
"""Of all that has to be done in the end: a saga that gets STUCK has no cause here."""


@dataclass(frozen=True, slots=True)
class Bank:
    """A participant with its ledger, which is open only in the process that serves it."""

    participant: Participant
    ledger: Ledger
    debit: Action[Debit, Posting]
    credit: Action[Credit, Posting]


@cache
def bank(name: str) -> Bank:
    """Return the bank of that name."""
    participant, ledger = Participant(name), Ledger()

    @participant.action(barrier=ledger.barrier)
    def debit(request: Debit, call: Call, tx: Connection) -> Posting:
        return withdraw(Book(tx, call.key), request)

    @participant.action(barrier=ledger.barrier)
    def credit(request: Credit, call: Call, tx: Connection) -> Posting:
        return deposit(Book(tx, call.key), request)

    @debit.compensation
    def undo_debit(request: Debit, done: Posting, call: Call, tx: Connection) -> None:
        reverse(Book(tx, call.execute_key), done)

    @credit.compensation
    def undo_credit(request: Credit, done: Posting, call: Call, tx: Connection) -> None:
        reverse(Book(tx, call.execute_key), done)

    return Bank(participant, ledger, debit, credit)


@cache
def transfer(source: str, destination: str, *, forward: bool) -> Saga[Transfer, Confirmation]:
    """Return the saga between two banks; `forward`: after the debit there is no way back, and the credit succeeds."""
    name = f"{'forward' if forward else 'transfer'}-{source}-{destination}"
    saga = Saga(name, input=Transfer, output=Confirmation)
    debit, credit = bank(source).debit, bank(destination).credit
    undo = Compensation(retry=WITHOUT_END, timeout=TIMEOUT_S)
    taking, putting = Debit(saga.input.source, saga.input.amount), Credit(saga.input.destination, saga.input.amount)
    if forward:
        taken = saga.step(debit, taking, kind=PIVOT, retry=WITHOUT_END, timeout=TIMEOUT_S)
        put = saga.step(credit, putting, kind=RETRIABLE, retry=WITHOUT_END, timeout=TIMEOUT_S)
    else:
        taken = saga.step(debit, taking, retry=A_FEW, timeout=TIMEOUT_S, compensation=undo)
        put = saga.step(credit, putting, retry=A_FEW, timeout=TIMEOUT_S, compensation=undo)
    saga.returns(Confirmation(debit_id=taken.output.id, credit_id=put.output.id))
    return saga
