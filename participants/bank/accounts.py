"""The bank's participant: debits and credits of accounts, each undone by its reverse. Amounts are whole units."""

from __future__ import annotations

from dataclasses import dataclass
from sqlite3 import Connection

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from participants.ledger import Book, Ledger

ACCOUNTS = {"A": 1000, "B": 500}
AMOUNT_MAX = 10**12  # far below what a column holds, so that no balance overflows

bank = Participant("bank")
ledger = Ledger()


@dataclass(frozen=True, slots=True)
class Debit:
    account: str
    amount: int


@dataclass(frozen=True, slots=True)
class Credit:
    account: str
    amount: int


@dataclass(frozen=True, slots=True)
class Posting:
    """A line in an account: negative amounts go out."""

    id: str
    account: str
    amount: int
    balance: int


@bank.action(barrier=ledger.barrier)
def debit(request: Debit, call: Call, tx: Connection) -> Posting:
    """Take money from an account."""
    return withdraw(Book(tx, call.key), request)


@bank.action(barrier=ledger.barrier)
def credit(request: Credit, call: Call, tx: Connection) -> Posting:
    """Put money into an account."""
    return deposit(Book(tx, call.key), request)


@debit.compensation
def undo_debit(request: Debit, done: Posting, call: Call, tx: Connection) -> None:
    reverse(Book(tx, call.execute_key), done)


@credit.compensation
def undo_credit(request: Credit, done: Posting, call: Call, tx: Connection) -> None:
    reverse(Book(tx, call.execute_key), done)


def withdraw(book: Book, request: Debit) -> Posting:
    """:raises Refused: if the account is not there, or does not hold as much."""
    balance = _balance(book, request.account, request.amount)
    if balance < request.amount:
        raise Refused("INSUFFICIENT_FUNDS", f"account {request.account} holds {balance}, not {request.amount}")
    return _post(book, "debit", request.account, -request.amount)


def deposit(book: Book, request: Credit) -> Posting:
    """:raises Refused: if the account is not there."""
    _balance(book, request.account, request.amount)
    return _post(book, "credit", request.account, request.amount)


def reverse(book: Book, posting: Posting) -> None:
    """May overdraw the account: a compensation cannot be refused because the money was spent meanwhile."""
    book.enter("reversal", posting.account, -posting.amount)


def _balance(book: Book, account: str, amount: int) -> int:
    if not 0 < amount <= AMOUNT_MAX:
        raise Refused("INVALID_AMOUNT", f"the amount must be from 1 to {AMOUNT_MAX}, not {amount}")
    balance = book.amount(account)
    if balance is None:
        raise Refused("UNKNOWN_ACCOUNT", f"there is no account {account}")
    return balance


def _post(book: Book, kind: str, account: str, amount: int) -> Posting:
    number = book.enter(kind, account, amount)
    return Posting(id=f"P-{number}", account=account, amount=amount, balance=book.amount(account) or 0)
