"""Case 42 as the store sees it: a disk that is full, fails or is locked makes it unavailable, and it comes back."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amends_server.store import connection as connection_module
from amends_server.store.protocol import SagaKey, Unavailable
from amends_server.store.sqlite import SqliteStore
from tests.store.make import append, key, records, start, written

MEBIBYTE = b"\x5a" * 2**20


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let every write beyond that place of a file fail, as a broken disk would: SQLite sees an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def assert_only(store: SqliteStore, *names: str) -> None:
    assert [row.key for row in await store.list_unfinished(None, 99)] == [SagaKey("default", name) for name in names]


async def test_42_disk_full_and_freed(sqlite_store: SqliteStore) -> None:
    await written(sqlite_store, start(key("a")))
    pages = await sqlite_store._write(lambda db: db.execute("pragma page_count").fetchone()[0])
    await sqlite_store._write(lambda db: db.execute(f"pragma max_page_count = {pages + 10}"))
    for _ in range(3):
        with pytest.raises(Unavailable, match="disk is full"):
            await sqlite_store.commit([start(key("small")), append(key("big"), records(1, body=MEBIBYTE))])
    await assert_only(sqlite_store, "a")
    await written(sqlite_store, start(key("fits")))
    await sqlite_store._write(lambda db: db.execute("pragma max_page_count = 1000000"))
    await written(sqlite_store, append(key("big"), records(1, body=MEBIBYTE)))
    await assert_only(sqlite_store, "a", "big", "fits")


async def test_42_an_io_error_and_a_disk_that_comes_back(sqlite_store: SqliteStore) -> None:
    await written(sqlite_store, start(key("a")))
    before = sqlite_store._connections
    with file_size_limit(200_000):
        for _ in range(3):
            with pytest.raises(Unavailable, match="SQLITE_IOERR"):
                await sqlite_store.commit([start(key("small")), append(key("big"), records(1, body=MEBIBYTE))])
            await assert_only(sqlite_store, "a")
    await written(sqlite_store, start(key("b")), append(key("big"), records(1, body=MEBIBYTE)))
    await assert_only(sqlite_store, "a", "b", "big")
    assert sqlite_store._connections is not before


async def test_42_a_disk_that_stays_broken_and_is_repaired(sqlite_store: SqliteStore) -> None:
    await written(sqlite_store, start(key("a")))
    with file_size_limit(0):
        for call in (sqlite_store.commit([start(key("b"))]), sqlite_store.check(), sqlite_store.next_epoch()):
            with pytest.raises(Unavailable):
                await call
        results = await asyncio.gather(*(sqlite_store.check() for _ in range(9)), return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
    await sqlite_store.check()
    await written(sqlite_store, start(key("b")))
    await assert_only(sqlite_store, "a", "b")


async def test_42_calls_in_flight_when_the_disk_fails_get_an_answer(sqlite_store: SqliteStore) -> None:
    await written(sqlite_store, start(key("a")))
    big = append(key("big"), records(1, body=MEBIBYTE))
    with file_size_limit(200_000):
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                sqlite_store.commit([big]),
                *(sqlite_store.get_saga(key("a")) for _ in range(50)),
                *(sqlite_store.check() for _ in range(20)),
                return_exceptions=True,
            )
    assert {type(result).__name__ for result in results} <= {"Unavailable", "StoredSaga", "NoneType"}
    assert isinstance(results[0], Unavailable)
    await written(sqlite_store, big)


async def test_42_locked_by_another_program_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "BUSY_TIMEOUT_S", 0.05)
    store = SqliteStore(tmp_path / "amends.db")
    await store.open()
    await written(store, start(key("a")))
    shell = sqlite3.connect(tmp_path / "amends.db", isolation_level=None)
    shell.execute("begin immediate")
    with pytest.raises(Unavailable, match="locked by another program"):
        await store.commit([start(key("b"))])
    await assert_only(store, "a")  # reading goes on
    shell.execute("rollback")
    await written(store, start(key("b")))
    shell.close()
    await store.close()


async def test_closing_during_a_failure_lets_go_of_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "amends.db")
    await store.open()
    with file_size_limit(0):
        with pytest.raises(Unavailable):
            await store.check()
        await store.close()
    again = SqliteStore(tmp_path / "amends.db")
    await again.open()
    await again.check()
    await again.close()
