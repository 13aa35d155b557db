"""What is SQLite's own: the file, its settings, its lock, its schema, and who may be killed while writing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amends_server.engine.state import SagaStatus
from amends_server.store import connection, listing
from amends_server.store.migration import Migration, load_migrations
from amends_server.store.protocol import Cursor, SagaFilter, SagaPage, StoreLocked, Unavailable
from amends_server.store.queries import load_queries
from amends_server.store.schema import migrate
from amends_server.store.sqlite import SqliteStore
from tests.store.make import append, birth, define, key, records, start, written
from tests.store.survival import acknowledged_before_a_kill, assert_all_are_there, assert_all_is_there_again, run, stop

HOLDER = """
import asyncio, sys
from amends_server.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1], "127.0.0.1:7242")
    await store.open()
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

# Only for the planner: the values play no part.
PLACES = dict.fromkeys(("namespace", "saga_id", "since", "until", "status", "statuses", "limit"), 0) | dict.fromkeys(
    (
        "definition_name",
        "definition_version",
        "label_name",
        "label_value",
        "labels",
        "after_time",
        "after_id",
        "counted",
    ),
    0,
)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be an ordinary user for a while: root may write everything."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


async def test_settings_that_durability_rests_on(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    settings = await sqlite_store._write(
        lambda db: [db.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert settings == ["wal", 2]  # 2 is FULL
    with pytest.raises(Unavailable, match="readonly"):
        await sqlite_store._read(lambda db: db.execute("delete from saga"))


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "amends.db"
    store = SqliteStore(path)
    await store.open()
    await assert_all_is_there_again(store, SqliteStore(path))


async def test_a_second_opener_is_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "amends.db"
    holder = run("-c", HOLDER, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    try:
        with pytest.raises(
            StoreLocked, match=rf"amends\.db is in use by process {holder.pid}.*127\.0\.0\.1:7242 since 2"
        ):
            await SqliteStore(path).open()
    finally:
        stop(holder)
    store = SqliteStore(path)  # the dead holder holds nothing
    await store.open()
    with pytest.raises(StoreLocked):
        await SqliteStore(path).open()
    await store.check()
    await store.close()


async def test_a_second_opener_by_another_name(tmp_path: Path) -> None:
    path, folder = tmp_path / "real" / "amends.db", tmp_path / "folder"
    store = SqliteStore(path)
    await store.open()
    (tmp_path / "link.db").symlink_to(path)
    folder.symlink_to(path.parent)
    for name in (tmp_path / "link.db", folder / "amends.db", tmp_path / "real" / ".." / "real" / "amends.db"):
        with pytest.raises(StoreLocked):
            await SqliteStore(name).open()
    await store.close()
    linked = SqliteStore(tmp_path / "link.db")
    await linked.open()
    await linked.close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "amends.db"
    path.write_text("my shopping list, which is longer than a hundred bytes " * 20)
    with pytest.raises(Unavailable, match="is not an SQLite database"):
        await SqliteStore(path).open()
    assert path.read_text().startswith("my shopping list")


async def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "amends.db"
    other = sqlite3.connect(path)
    other.execute("create table saga (tale text)")
    other.close()
    with pytest.raises(Unavailable, match="of another program"):
        await SqliteStore(path).open()


async def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "amends.db"
    store = SqliteStore(path)
    await store.open()
    await written(store, *(start(key(f"s{number}")) for number in range(500)))
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * (path.stat().st_size - 4096))
    with pytest.raises(Unavailable, match="is damaged"):
        await open_and_use(SqliteStore(path))


async def test_a_newer_schema(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "amends.db")
    await store.open()
    await store._write(lambda db: db.execute("insert into migration (number, name) values (99, 'future')"))
    await store.close()
    with pytest.raises(Unavailable, match=r"schema 99.*newer version"):
        await store.open()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be made"):
        await SqliteStore(tmp_path / "file" / "amends.db").open()
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable, match="cannot be opened"):
        await SqliteStore(tmp_path / "folder").open()


def test_a_file_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_one() -> None:
        with pytest.raises(Unavailable, match="cannot be opened"):
            await SqliteStore(tmp_path).open()

    broken: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: broken.append(failure.exc_value))
    before = set(threading.enumerate())
    for _ in range(100):  # which thread is faster is luck
        asyncio.run(open_one())
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert broken == []


async def test_a_file_that_may_only_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "amends.db"
        store = SqliteStore(path)
        await store.open()
        await store.close()
        path.chmod(0o444)
        (path.parent / "amends.db.lock").chmod(0o666)
        with somebody_else(), pytest.raises(Unavailable, match=f"{path} cannot be written"):
            await store.open()


async def test_a_cancelled_caller_leaves_its_batch_whole_or_absent(sqlite_store: SqliteStore) -> None:
    await define(sqlite_store)
    for number in range(40):
        batch = [start(key(f"{number}-{part}")) for part in range(30)]
        task = asyncio.create_task(sqlite_store.commit(batch))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await sqlite_store.commit([start(key(f"after-{number}"))])
    found = [row.key.saga_id for row in await sqlite_store.list_unfinished(None, 9_999)]
    parts = [sum(name.startswith(f"{number}-") for name in found) for number in range(40)]
    assert set(parts) <= {0, 30}
    assert sum(name.startswith("after-") for name in found) == 40


@pytest.mark.parametrize("lines", [1, 57, 400])
async def test_i20_kill_9_of_a_writer_loses_nothing_acknowledged(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "amends.db"
    acknowledged = acknowledged_before_a_kill(str(path), lines)
    store = SqliteStore(path)
    await store.open()
    await assert_all_are_there(store, acknowledged)
    await store.close()


async def test_every_page_reads_an_index(sqlite_store: SqliteStore) -> None:
    sql = load_queries("sqlite")
    listings = [sql[index] + sql["matching"] for index in ("by_time", "by_status", "by_definition", "by_label")]
    for query in (*listings, sql["by_due_time"], sql["unfinished"]):
        statement = "explain query plan " + sql["select_saga"] + query
        plan = [row[3] for row in await sqlite_store._read(lambda db, s=statement: db.execute(s, PLACES).fetchall())]
        assert plan[0].startswith("SEARCH p USING"), plan
        assert not any(line.startswith(("SCAN s", "SCAN p", "USE TEMP B-TREE FOR ORDER BY")) for line in plan), plan


async def test_what_is_common_each_and_rare_together_is_looked_for_a_page_at_a_time(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "ROWS_LOOKED_AT", 20)
    await written(
        sqlite_store,
        *(start(key(f"s{number:02}"), birth(created=number, labels={"ab"[number % 2]: "x"})) for number in range(90)),
        start(key("rare"), birth(created=25, labels={"a": "x", "b": "x"})),
    )
    where = SagaFilter(namespace="default", labels={"a": "x", "b": "x"})
    first = await sqlite_store.list_sagas(where, None, 5)
    assert (first.sagas, first.after) == ([], Cursor(49, ""))
    second = await sqlite_store.list_sagas(where, first.after, 5)
    assert ([saga.key.saga_id for saga in second.sagas], second.after) == (["rare"], Cursor(11, ""))
    third = await sqlite_store.list_sagas(where, second.after, 5)
    assert third == SagaPage([], None)


async def test_rows_are_counted_in_an_index_alone(sqlite_store: SqliteStore) -> None:
    for index in ("time", "status", "definition", "label"):
        statement = "explain query plan " + load_queries("sqlite")[f"reach_by_{index}"]
        plan = [row[3] for row in await sqlite_store._read(lambda db, s=statement: db.execute(s, PLACES).fetchall())]
        (search,) = [line for line in plan if line.startswith("SEARCH")]
        assert "COVERING INDEX" in search or "PRIMARY KEY" in search, plan
        assert "create_time>? AND create_time<?" in search, plan
        assert not any("TEMP B-TREE" in line for line in plan), plan


def test_a_migration_that_fails_leaves_nothing() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    good = Migration(1, "good", "create table a (x); insert into a values ('; -- no end');")
    with pytest.raises(sqlite3.OperationalError):
        migrate(db, [good, Migration(2, "bad", "create table b (x);\ninsert into nothing values (1);\n")])
    assert db.execute("select count(*) from sqlite_master").fetchone() == (0,)
    migrate(db, [good])
    migrate(db, [good, Migration(2, "better", "create table b (x);\n")])
    assert db.execute("select number, name from migration").fetchall() == [(1, "good"), (2, "better")]
    with pytest.raises(Unavailable, match="different"):
        migrate(db, [good, Migration(2, "other", "create table c (x);\n")])
    db.close()


async def test_a_file_of_an_older_schema_keeps_its_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, journal = tmp_path / "amends.db", [*records(1, 3), *records(4, 2, body=b"long" * 5_000)]
    with monkeypatch.context() as older:
        older.setattr(connection, "load_migrations", lambda store: load_migrations(store)[:2])
        store = SqliteStore(path)
        await store.open()
        await written(store, append(key("one"), journal[:4]), start(key("two")), append(key("one"), journal[4:]))
        await store.close()
    newer = SqliteStore(path)
    await newer.open()
    try:
        assert await newer.read_records(key("one"), 0, 10) == journal
        assert await newer.read_records(key("two"), 0, 10) == records(1)
    finally:
        await newer.close()


async def test_batches_of_any_size_are_written_whole(sqlite_store: SqliteStore) -> None:
    expected = 0
    for size in (*range(1, 70), 127, 128, 129, 511, 512, 513, 1_025):
        sagas = [key(f"{size}/{number}") for number in range(size)]
        await written(sqlite_store, *(start(saga) for saga in sagas))
        await written(sqlite_store, *(append(saga, records(2)) for saga in sagas))
        expected += size
        heads = await sqlite_store._read(lambda db: db.execute("select count(*), sum(sequence) from saga").fetchone())
        events = await sqlite_store._read(lambda db: db.execute("select count(*) from event").fetchone())
        assert (heads, events) == ((expected, 2 * expected), (2 * expected,))


async def test_large_bodies_share_pages(sqlite_store: SqliteStore) -> None:
    await written(sqlite_store, *(append(key(f"{n}"), records(1, body=b"x" * 1_200)) for n in range(300)))
    (pages,) = await sqlite_store._read(lambda db: db.execute("pragma page_count").fetchone())
    assert pages < 200, "three bodies go into a page of 4,096 bytes"


def test_migrations_are_numbered() -> None:
    assert [migration.name for migration in load_migrations("sqlite")][:1] == ["sagas"]


async def open_and_use(store: SqliteStore) -> None:
    try:
        await store.open()
        await written(store, start(key("new"), status=SagaStatus.STUCK))
    finally:
        await store.close()
