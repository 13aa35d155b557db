"""Connections to an SQLite file: how they are opened, and work that runs whole in their threads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import aiosqlite

from amends_server.store.migration import load_migrations
from amends_server.store.protocol import Unavailable
from amends_server.store.schema import migrate

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""Plain code on a connection: it runs in the connection's thread and to its end, whoever is cancelled meanwhile."""

BUSY_TIMEOUT_S = 5.0
"""How long another program, such as an SQLite shell, may hold the file before the store counts as unavailable."""

CHECKPOINT_PAGES = 4_000
"""Log pages (16 MiB) before a commit moves them into the database: each move costs two syncs more."""

APPLICATION_ID = 0x616D6E64
"""What marks a file as ours ("amnd")."""

_STATEMENTS_CACHED = 128


class Connection(aiosqlite.Connection):
    """A connection that runs a whole piece of work in one visit to its thread.

    A visit costs about as much as the statements of a small batch, and a task that is cancelled between two visits
    would leave its transaction open. So transactions are plain functions: nothing is awaited inside of them.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=1)
        self._thread.daemon = True  # a process that fails must end, and not wait for a store that nobody closes
        self._stopping: asyncio.Future[object] | None = None
        self.closed = False

    def stop(self) -> asyncio.Future[object] | None:
        self._stopping = cast("asyncio.Future[object] | None", super().stop())  # pyright: ignore[reportUnknownMemberType]
        return self._stopping

    async def open(self) -> None:
        """Connect. :raises sqlite3.Error: if there is no file to be had."""
        try:
            await self
        except BaseException:
            if self._stopping is not None:
                await self._stopping  # or its thread would report to a loop that may be gone by then
            raise

    async def run(self, work: Work[T]) -> T:
        """Run the work after what was asked for before.

        :raises sqlite3.Error: as the work does. :raises Unavailable: when the connection is closed.
        """
        if self.closed:
            raise Unavailable("The store is closed.")
        # What aiosqlite's own methods are made of, but without types.
        execute = cast(Callable[[Work[T], sqlite3.Connection], Awaitable[T]], self._execute)  # pyright: ignore[reportUnknownMemberType]
        return await execute(work, self._conn)

    async def close(self) -> None:
        """Close after what was asked for before."""
        self.closed = True
        await super().close()


async def open_writer(path: Path, *, in_doubt: bool) -> Connection:
    """Open the one connection that writes, and make the file ready.

    `in_doubt` after an I/O error: the file is then believed only when all its log has been moved into the database.
    """
    return await _open(path, partial(_prepare_writer, path, in_doubt=in_doubt))


async def open_reader(path: Path) -> Connection:
    """Open a connection that reads beside the writer."""
    return await _open(path, _prepare_reader)


def transact(work: Work[T], db: sqlite3.Connection) -> T:
    """Do the work in a transaction: when this returns it is durable, when it raises nothing was written."""
    db.execute("begin immediate")
    try:
        result = work(db)
        db.execute("commit")
    finally:
        if db.in_transaction:
            db.execute("rollback")
    return result


def snapshot(work: Work[T], db: sqlite3.Connection) -> T:
    """Do the reading on one state of the database."""
    db.execute("begin")
    try:
        return work(db)
    finally:
        if db.in_transaction:
            db.execute("rollback")


async def _open(path: Path, prepare: Work[None]) -> Connection:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=_STATEMENTS_CACHED)

    connection = Connection(connect)
    await connection.open()
    try:
        await connection.run(prepare)
    except BaseException:
        await connection.close()
        raise
    return connection


def _prepare_writer(path: Path, db: sqlite3.Connection, *, in_doubt: bool) -> None:
    _check_owner(path, db)
    _set(path, db, "journal_mode", "wal", "wal")
    _set(path, db, "synchronous", "full", 2)
    _set(path, db, "wal_autocheckpoint", str(CHECKPOINT_PAGES), CHECKPOINT_PAGES)
    migrate(db, load_migrations("sqlite"))
    if in_doubt:
        _trust_again(path, db)


def _prepare_reader(db: sqlite3.Connection) -> None:
    db.execute("pragma query_only = on")


def _check_owner(path: Path, db: sqlite3.Connection) -> None:
    (application_id,) = db.execute("pragma application_id").fetchone()
    (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
    if application_id == 0 and tables == 0:
        db.execute(f"pragma application_id = {APPLICATION_ID}")
    elif application_id != APPLICATION_ID:
        raise Unavailable(f"{path} is a database of another program.")


def _set(path: Path, db: sqlite3.Connection, pragma: str, value: str, meant: object) -> None:
    """Set a PRAGMA and read it back: SQLite says nothing when it does not take one."""
    db.execute(f"pragma {pragma} = {value}").fetchall()
    (found,) = db.execute(f"pragma {pragma}").fetchone()
    if found != meant:
        raise Unavailable(f"{path} cannot be used safely: SQLite's {pragma} is {found!r} and not {meant!r}.")


def _trust_again(path: Path, db: sqlite3.Connection) -> None:
    """Write all that the log holds into the database with a sync of its own: a failed sync may have dropped pages."""
    _, in_log, moved = db.execute("pragma wal_checkpoint(full)").fetchone()
    if in_log != moved:
        raise Unavailable(f"{path} cannot be brought up to date after an I/O error while another program reads it.")
