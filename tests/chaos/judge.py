"""Decides whether a run was good: by the banks' own ledgers, by what clients were told, and by how sagas ended."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from amends import SagaStatus
from tests.chaos.diary import Known, Order
from tests.chaos.transfers import ACCOUNTS, BALANCE


@dataclass(frozen=True, slots=True)
class Line:
    """A line in the ledger of a bank: what one call of a saga did to an account."""

    bank: str
    key: str
    kind: str
    account: str
    amount: int

    @property
    def saga(self) -> str:
        return self.key.split("/")[1]


@dataclass(frozen=True, slots=True)
class Books:
    """What is in the banks' databases: the accounts as (bank, account), and the lines."""

    amounts: Mapping[tuple[str, str], int]
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class End:
    """How a saga stands in the end, as the orchestrator has it."""

    status: SagaStatus
    sequence: int


def read_books(databases: Mapping[str, Path]) -> Books:
    """Read the databases of the banks, which have ended."""
    amounts: dict[tuple[str, str], int] = {}
    lines: list[Line] = []
    for bank, path in databases.items():
        with closing(sqlite3.connect(path)) as db:
            for account, amount in db.execute("SELECT subject, amount FROM amount"):
                amounts[bank, account] = amount
            found = db.execute("SELECT key, kind, subject, amount FROM entry ORDER BY id")
            lines += [Line(bank, *row) for row in found]
    return Books(amounts, lines)


def judge(known: Mapping[str, Known], ends: Mapping[str, End], books: Books) -> list[str]:
    """Return all that is wrong, in sentences."""
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for line in books.lines:
        lines[line.saga].append(line)
    found = [*_money(books), *(f"saga {saga}: nobody wanted it" for saga in (ends.keys() | lines) - known.keys())]
    for saga, each in known.items():
        for problem in _saga(each, ends.get(saga), lines[saga]):
            found.append(f"saga {saga}: {problem}")
    return found


def _money(books: Books) -> Iterable[str]:
    banks = {bank for bank, _ in books.amounts}
    expected = BALANCE * len(ACCOUNTS) * len(banks)
    if (total := sum(books.amounts.values())) != expected:
        yield f"there were {expected} units of money, and now there are {total}"
    moved = Counter[tuple[str, str]]()
    for line in books.lines:
        moved[line.bank, line.account] += line.amount
    for account, amount in books.amounts.items():
        if amount != BALANCE + moved[account]:
            yield f"account {account} holds {amount}, but by its lines it should be {BALANCE + moved[account]}"


def _saga(known: Known, end: End | None, lines: list[Line]) -> Iterable[str]:
    yield from _effects(lines)
    yield from _watched(known, end)
    if end is None:
        if known.acknowledged or known.ends:
            yield "it was acknowledged, and is lost"
        if lines:
            yield f"it was never started, but had effects: {lines}"
        return
    if set(known.ends) - {str(end.status)}:
        yield f"clients were told that it ended as {known.ends}, and it is {end.status}"
    if known.cancelled and end.status is SagaStatus.COMPLETED:
        yield "a client was told that it is cancelled, and it is COMPLETED"
    match end.status:
        case SagaStatus.COMPLETED:
            if (moves := _moves(lines)) != _moves_of(known.order):
                yield f"it is COMPLETED, but moved {dict(moves)}"
            if any(line.kind == "reversal" for line in lines):
                yield f"it is COMPLETED, but something was undone: {lines}"
        case SagaStatus.COMPENSATED:
            if left := _moves(lines):
                yield f"it is COMPENSATED, but this is left of it: {dict(left)}"
        case _:
            yield f"it is {end.status}, which nothing here gives a cause for"


def _effects(lines: list[Line]) -> Iterable[str]:
    """Each key has at most one effect, which is undone at most once."""
    for (key, undone), count in Counter((line.key, line.kind == "reversal") for line in lines).items():
        if count > 1:
            yield f"key {key} was {'undone' if undone else 'effective'} {count} times"


def _watched(known: Known, end: End | None) -> Iterable[str]:
    if known.seen != list(range(1, len(known.seen) + 1)):
        yield f"a watcher saw the events {known.seen}"
    if end is not None and len(known.seen) > end.sequence:
        yield f"a watcher saw {len(known.seen)} events, and there are {end.sequence}"


def _moves(lines: Iterable[Line]) -> Counter[tuple[str, str]]:
    """Return what has changed, by account; what was undone has not."""
    moves = Counter[tuple[str, str]]()
    for line in lines:
        moves[line.bank, line.account] += line.amount
    return Counter({account: amount for account, amount in moves.items() if amount})


def _moves_of(order: Order) -> Counter[tuple[str, str]]:
    taken = Line(order.source_bank, "", "debit", order.source, -order.amount)
    put = Line(order.destination_bank, "", "credit", order.destination, order.amount)
    return _moves([taken, put])
