"""The ledger of the participants: amounts and entries in one file, which stand or fall with their key's verdict."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amends.errors import Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from amends.participant.serve import serving
from participants.ledger import Book, Ledger
from tests.participants.calls import SUCCESS, calling


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger().opened(tmp_path / "ledger.db", {"a": 10}) as ledger:
        yield ledger


def taker(ledger: Ledger) -> Participant:
    """A participant that takes one of what it is asked for, and breaks at `broken`, refuses at `refused` after that."""
    taker = Participant("taker")

    @taker.action(barrier=ledger.barrier)
    def take(request: str, call: Call, tx: sqlite3.Connection) -> int:
        number = Book(tx, call.key).enter("take", "a", -1)
        if request == "broken":
            raise OSError("the disk")
        if request == "refused":
            raise Refused("NO", "not that")
        return number

    return taker


async def test_entries_stand_or_fall_with_the_verdict(ledger: Ledger) -> None:
    async with serving(taker(ledger)) as address, calling(address) as caller:
        assert (await caller.execute("take", "broken", "k")).status != SUCCESS
        assert (await caller.execute("take", "refused", "other")).error.code == "NO"
        assert (ledger.amounts(), ledger.entries()) == ({"a": 10}, [])
        assert (await caller.execute("take", "", "k")).status == SUCCESS
    assert ledger.amounts() == {"a": 9}
    assert [(entry.key, entry.kind) for entry in ledger.entries()] == [("k", "take")]


def test_a_book_knows_what_is_there(ledger: Ledger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        book = Book(connection, "k")
        assert (book.amount("a"), book.amount("b")) == (10, None)
        assert (book.enter("found", "b", 3), book.amount("b")) == (1, 3)


def test_first_amounts_are_for_new_subjects_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "ledger.db"
    with Ledger().opened(path, {"a": 10}):
        pass
    with Ledger().opened(path, {"a": 11, "b": 5}) as ledger:
        assert ledger.amounts() == {"a": 10, "b": 5}
    with pytest.raises(RuntimeError, match="not open"):
        ledger.amounts()
