"""The ledger of the participants: the verdict of a key and its effect stand or fall together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amends.errors import Refused
from participants.ledger import Book, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger().opened(tmp_path / "ledger.db", {"a": 10}) as ledger:
        yield ledger


def take(book: Book) -> int:
    return book.enter("take", "a", -1)


def give_back(book: Book, number: int) -> None:
    book.enter(f"give back {number}", "a", 1)


def test_of_a_refused_effect_nothing_stays_but_the_refusal(ledger: Ledger) -> None:
    def half(book: Book) -> int:
        take(book)
        raise Refused("NO", "not that", data={"why": [1, 2]})

    for effect in (half, take):
        with pytest.raises(Refused) as caught:
            ledger.execute("k", int, effect)
        assert (caught.value.code, caught.value.message, caught.value.stored) == ("NO", "not that", True)
        assert "why" in str(caught.value.data)
    assert (ledger.amounts(), ledger.entries()) == ({"a": 10}, [])


def test_an_effect_that_breaks_leaves_its_key_free(ledger: Ledger) -> None:
    def broken(book: Book) -> int:
        take(book)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        ledger.execute("k", int, broken)
    assert (ledger.amounts(), ledger.entries()) == ({"a": 10}, [])
    assert ledger.execute("k", int, take) == ledger.execute("k", int, take)
    assert ledger.amounts() == {"a": 9}


def test_an_undoing_that_breaks_can_be_tried_again(ledger: Ledger) -> None:
    def broken(book: Book, number: int) -> None:
        give_back(book, number)
        raise OSError("the disk")

    number = ledger.execute("k", int, take)
    with pytest.raises(OSError, match="the disk"):
        ledger.compensate("k", int, broken)
    assert ledger.amounts() == {"a": 9}
    ledger.compensate("k", int, give_back)
    assert [entry.kind for entry in ledger.entries()] == ["take", f"give back {number}"]


def test_two_processes_on_one_file_have_one_effect_a_key(ledger: Ledger, tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def work(own: Ledger) -> list[int]:
        barrier.wait(10)
        return [own.execute(f"k{n}", int, take) for n in range(50)]

    with Ledger().opened(tmp_path / "ledger.db", {"a": 99}) as other, ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, [ledger, other])
    assert first == second
    assert ledger.amounts() == {"a": -40}
    assert len(ledger.entries()) == 50


def test_first_amounts_are_for_new_subjects_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "ledger.db"
    with Ledger().opened(path, {"a": 10}) as ledger:
        ledger.execute("k", int, take)
    with ledger.opened(path, {"a": 10, "b": 5}):
        assert ledger.amounts() == {"a": 9, "b": 5}
    with pytest.raises(RuntimeError, match="not open"):
        ledger.amounts()
