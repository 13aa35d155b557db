"""Tills: a participant that takes a coin and gives it back as it should, and those that are wrong in one way each."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from amends import Call, Participant, Refused, barrier


class Till:
    """Right by keys: it remembers what it did, and what it undid."""

    def __init__(self) -> None:
        self.coins = 0
        self.done: set[str] = set()
        self.undone: set[str] = set()
        self.participant = Participant("till")
        self.action = self.participant.action(name="pay")(self.pay)
        self.action.compensation(self.pay_back)

    def effects(self) -> int:
        return self.coins

    def pay(self, request: str, call: Call) -> str:
        if call.key in self.undone:
            raise Refused("UNDONE", stored=True)
        if call.key not in self.done:
            self.done.add(call.key)
            self.coins += 1
        return "paid"

    def pay_back(self, request: str, done: str | None, call: Call) -> None:
        if call.execute_key in self.done - self.undone:
            self.coins -= 1
        self.undone.add(call.execute_key)


class AsyncTill(Till):
    """Right, with handlers that wait."""

    async def pay(self, request: str, call: Call) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        await asyncio.sleep(0)
        return super().pay(request, call)

    async def pay_back(self, request: str, done: str | None, call: Call) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        await asyncio.sleep(0)
        super().pay_back(request, done, call)


class BarrierTill:
    """Right by a barrier, so that its handlers need not think of keys."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.database.execute("CREATE TABLE coin (number INTEGER)")
        self.database.execute("INSERT INTO coin VALUES (0)")
        self.database.execute("PRAGMA synchronous = FULL")
        once = barrier.sqlite3(self.connection)
        once.create_table()
        self.participant = Participant("till")
        self.action = self.participant.action(name="pay", barrier=once)(self.pay)
        self.action.compensation(self.pay_back)

    @contextmanager
    def connection(self) -> Generator[sqlite3.Connection]:
        yield self.database

    def effects(self) -> int:
        return int(self.database.execute("SELECT number FROM coin").fetchone()[0])

    def pay(self, request: str, call: Call, tx: sqlite3.Connection) -> str:
        tx.execute("UPDATE coin SET number = number + 1")
        return "paid"

    def pay_back(self, request: str, done: str, call: Call, tx: sqlite3.Connection) -> None:
        tx.execute("UPDATE coin SET number = number - 1")


class NotIdempotent(Till):
    """Takes a coin for each attempt."""

    def pay(self, request: str, call: Call) -> str:
        if call.key in self.undone:
            raise Refused("UNDONE", stored=True)
        self.done.add(call.key)
        self.coins += 1
        return "paid"


class ForgetsTombstones(Till):
    """Does what was undone before it came."""

    def pay(self, request: str, call: Call) -> str:
        if call.key not in self.done - self.undone:
            self.done.add(call.key)
            self.undone.discard(call.key)
            self.coins += 1
        return "paid"


class CompensatesNothing(Till):
    """Says that it has undone, and has not."""

    def pay_back(self, request: str, done: str | None, call: Call) -> None:
        self.undone.add(call.execute_key)


class TakesUnknownForUndone(Till):
    """Takes it that there is nothing to undo where nobody heard of an outcome."""

    def pay_back(self, request: str, done: str | None, call: Call) -> None:
        if done is None:
            self.undone.add(call.execute_key)
        else:
            super().pay_back(request, done, call)


class TakesUnknownForFailed(Till):
    """Takes a repeated call for one that has failed before."""

    def pay(self, request: str, call: Call) -> str:
        if call.key in self.done:
            raise Refused("FAILED_BEFORE", stored=True)
        return super().pay(request, call)


class UndoNotIdempotent(Till):
    """Gives the coin back for each attempt."""

    def pay_back(self, request: str, done: str | None, call: Call) -> None:
        if call.execute_key in self.done:
            self.coins -= 1
        self.undone.add(call.execute_key)


class RefusesEmptyUndo(Till):
    """Will not undo what it has not done."""

    def pay_back(self, request: str, done: str | None, call: Call) -> None:
        if call.execute_key not in self.done:
            raise Refused("NOTHING_TO_UNDO")
        super().pay_back(request, done, call)
