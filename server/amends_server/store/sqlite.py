"""The store in an SQLite file: one orchestrator, one connection that writes, a few that read beside it.

See docs/decisions/0008-sqlite-errors.md for what happens when the disk fails, and why.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from amends_server.engine.policy import Time
from amends_server.store import registry, sagas
from amends_server.store.connection import Connection, Work, open_reader, open_writer, snapshot, transact
from amends_server.store.incarnation import epoch_before_next
from amends_server.store.leases import Sole
from amends_server.store.lock import LockFile
from amends_server.store.migration import Migration, load_migrations
from amends_server.store.protocol import (
    SECRET_BYTES,
    Append,
    Cursor,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
    StoreError,
    Unavailable,
    Unwritable,
)
from amends_server.store.schema import missing
from amends_server.store.sharing import Sharing

T = TypeVar("T")

READERS = 3
"""Long listings must not hold up short reads; more would only fight for the interpreter."""

_HARMLESS = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_INTERRUPT,
})  # fmt: skip
"""Errors after which SQLite's documentation leaves no doubt of what is stored: the transaction is rolled back."""

_SENTENCES = {
    sqlite3.SQLITE_BUSY: "is locked by another program",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_READONLY: "cannot be written: let this user write it and its folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: look whether it is a file that this user may write",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database: choose another store",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
}


@dataclass(slots=True)
class _Connections:
    writer: Connection
    readers: list[Connection] = field(default_factory=list[Connection])
    idle: asyncio.LifoQueue[Connection] = field(default_factory=asyncio.LifoQueue[Connection])

    async def close(self) -> None:
        for connection in (*self.readers, self.writer):  # the last one to be closed moves the log into the database
            with suppress(sqlite3.Error):  # nothing depends on it: the log is kept, and read when the file is opened
                await connection.close()


class SqliteStore:
    """Keeps everything in one file. See Store for the methods.

    `address` is where this orchestrator listens, to be named to a second one that wants the file.
    """

    def __init__(self, path: str | Path, address: str = "") -> None:
        self._path = Path(path).resolve()  # a file has one lock, under whatever name it is opened
        self._address = address
        self._lock: LockFile | None = None
        self._connections: _Connections | None = None
        self._doubtful: _Connections | None = None
        self._opening: asyncio.Task[_Connections] | None = None

    async def pending(self) -> list[Migration]:
        """Return the migrations that `open` would make. The file is only read, and may be in use.

        :raises Unavailable: as `open` does.
        """
        try:
            return await asyncio.to_thread(missing, self._path, load_migrations("sqlite"))
        except sqlite3.Error as error:
            raise Unavailable(_sentence(self._path, error)) from error

    async def open(self) -> None:
        assert self._lock is None, "the store is open"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"The folder {self._path.parent} cannot be made ({error.strerror}): choose another store, or make it."
            ) from error
        lock = LockFile(Path(f"{self._path}.lock"))
        lock.hold(_note(self._address))
        self._lock = lock
        try:
            await self._ready()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        lock, self._lock = self._lock, None
        if self._opening is not None:
            await asyncio.wait({self._opening})
        for connections in (self._connections, self._doubtful):
            if connections is not None:
                await connections.close()
        self._connections = self._doubtful = None
        if lock is not None:
            lock.release()

    async def check(self) -> None:
        await self._write(_COUNT_CHECK)

    async def own(self) -> Sole:
        return Sole(await self.next_epoch())

    async def begin_incarnation(self, now: Time) -> int:
        return await self._write(partial(_begin_incarnation, now))

    async def next_epoch(self) -> int:
        """Count up and return the epoch of the process that owns the store. It only grows."""
        return await self._write(partial(_count_up, "epoch"))

    async def secret(self) -> bytes:
        return await self._write(_secret)

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        return await self._write(partial(sagas.commit, appends))

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        return await self._read(partial(sagas.get_saga, key))

    async def read_records(self, key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        return await self._read(partial(sagas.read_records, key, after_sequence + 1, after_sequence + limit))

    async def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> SagaPage:
        return await self._read(partial(sagas.list_sagas, where, after, limit))

    async def list_due(
        self, until: Time, after: tuple[Time, SagaKey] | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        assert within is None, "there are no partitions"
        return await self._read(partial(sagas.list_due, until, after, limit))

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        assert within is None, "there are no partitions"
        return await self._read(partial(sagas.list_unfinished, after, limit))

    async def sharing(self, now: Time) -> Sharing:
        return await self._read(partial(sagas.sharing, now))

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        return await self._write(partial(registry.put_definition, definition))

    async def get_definition(
        self, namespace: str, *, name: str = "", version: int = 0, digest: str = ""
    ) -> StoredDefinition:
        return await self._read(partial(registry.get_definition, namespace, name, version, digest))

    async def list_definitions(
        self, namespace: str, name: str, after: tuple[str, int] | None, limit: int
    ) -> list[StoredDefinition]:
        return await self._read(partial(registry.list_definitions, namespace, name, after, limit))

    async def delete_definition(self, namespace: str, digest: str) -> None:
        await self._write(partial(registry.delete_definition, namespace, digest))

    async def put_participant(self, participant: StoredParticipant) -> None:
        await self._write(partial(registry.put_participant, participant))

    async def list_participants(self) -> list[StoredParticipant]:
        return await self._read(registry.list_participants)

    async def delete_participant(self, name: str) -> None:
        await self._write(partial(registry.delete_participant, name))

    async def _write(self, work: Work[T]) -> T:
        connections = await self._ready()
        try:
            return await connections.writer.run(partial(transact, work))
        except (OverflowError, UnicodeEncodeError) as error:  # by Python's binding, before SQLite has seen the value
            raise Unwritable(f"The database {self._path} cannot hold it ({type(error).__name__}).") from None
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_TOOBIG:
                raise Unwritable(f"The database {self._path} cannot hold it: it is too large.") from None
            raise self._failed(connections, error) from error

    async def _read(self, work: Work[T]) -> T:
        connections = await self._ready()
        reader = await connections.idle.get()
        try:
            return await reader.run(partial(snapshot, work))
        except sqlite3.Error as error:
            raise self._failed(connections, error) from error
        finally:
            connections.idle.put_nowait(reader)

    async def _ready(self) -> _Connections:
        """Return the connections, opened anew if the last ones are in doubt."""
        if self._lock is None:
            raise Unavailable("The store is closed.")
        if self._connections is not None:
            return self._connections
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_connections(), name="store opening")
        return await asyncio.shield(self._opening)  # others wait for it too

    async def _open_connections(self) -> _Connections:
        try:
            if self._doubtful is not None:
                await self._doubtful.close()
            connections = _Connections(await open_writer(self._path, in_doubt=self._doubtful is not None))
            await self._complete(connections)
        except sqlite3.Error as error:
            raise Unavailable(_sentence(self._path, error)) from error
        finally:
            self._opening = None
        self._connections, self._doubtful = connections, None
        return connections

    async def _complete(self, connections: _Connections) -> None:
        """Try the writer with a real write, which alone finds that a file may only be read, and add readers."""
        try:
            await connections.writer.run(partial(transact, _COUNT_CHECK))
            for _ in range(READERS):
                reader = await open_reader(self._path)
                connections.readers.append(reader)
                connections.idle.put_nowait(reader)
        except BaseException:
            await connections.close()
            raise

    def _failed(self, connections: _Connections, error: sqlite3.Error) -> Unavailable:
        """Say what happened; after an error that leaves doubts these connections are not used again."""
        if _code(error) not in _HARMLESS and self._connections is connections:
            self._connections, self._doubtful = None, connections
        return Unavailable(_sentence(self._path, error))


def _count_up(name: str, db: sqlite3.Connection) -> int:
    (value,) = db.execute(sagas.SQL["count_up"], (name,)).fetchone()
    return int(value)


def _begin_incarnation(now: Time, db: sqlite3.Connection) -> int:
    (newest,) = db.execute(sagas.SQL["newest_epoch"]).fetchone()
    epoch = epoch_before_next(newest, now)
    db.execute(sagas.SQL["set_epoch"], (epoch,))
    return epoch


_COUNT_CHECK = partial(_count_up, "checks")


def _secret(db: sqlite3.Connection) -> bytes:
    db.execute(sagas.SQL["keep_secret"], (secrets.token_bytes(SECRET_BYTES),))
    (value,) = db.execute(sagas.SQL["read_secret"]).fetchone()
    return bytes(value)


def _note(address: str) -> str:
    """Say who holds the lock, as the middle of a sentence."""
    return f"process {os.getpid()}" + (f", which listens on {address}" if address else "")


def _code(error: sqlite3.Error) -> int:
    """Return the primary error code, 0 for an error of Python's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _sentence(path: Path, error: sqlite3.Error) -> str:
    what = _SENTENCES.get(_code(error), "failed")
    return f"The database {path} {what} ({getattr(error, 'sqlite_errorname', type(error).__name__)}: {error})."
