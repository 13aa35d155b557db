"""The `transfer` saga: money from one account to another, or to nowhere at all."""

from __future__ import annotations

from dataclasses import dataclass

from amends.definition.builder import Saga
from participants.bank.accounts import Credit, Debit, credit, debit


@dataclass(frozen=True, slots=True)
class Transfer:
    source: str
    destination: str
    amount: int


@dataclass(frozen=True, slots=True)
class Confirmation:
    debit_id: str
    credit_id: str


transfer = Saga("transfer", input=Transfer, output=Confirmation, description="Moves money between two accounts.")
taken = transfer.step(debit, Debit(account=transfer.input.source, amount=transfer.input.amount))
put = transfer.step(credit, Credit(account=transfer.input.destination, amount=transfer.input.amount))
transfer.returns(Confirmation(debit_id=taken.output.id, credit_id=put.output.id))
