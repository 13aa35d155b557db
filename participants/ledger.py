"""What a participant remembers: amounts, an append-only ledger of effects, and the verdict of each key, in one file.

The verdict is written in the transaction of the effect that it is about, and its key is inserted before anything else.
So Execute and Compensate of one action queue up on that insert, in any order and however often they come:

    Execute     key is new         the effect happens once; its output, or its refusal, is the verdict
                key has a verdict  the first outcome again, and no effect
                key was undone     refused, and no effect
    Compensate  key is new         no effect; the key counts as undone, so that a late Execute is refused
                key succeeded      the effect is undone once
                otherwise          there is nothing to undo
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from amends.errors import Refused
from amends.payloads import decode, encode
from amends.v1 import payload_pb2

Out = TypeVar("Out")

BUSY_TIMEOUT_S = 5.0  # for another process on the same file

SCHEMA = """
CREATE TABLE IF NOT EXISTS amount (subject TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdict (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('succeeded', 'refused', 'undone')),
    outcome BLOB  -- the output as a Payload, or the refusal as an Error
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    amount INTEGER NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect: what happened to the amount of a subject. `key` is that of the action, also where it is undone."""

    id: int
    key: str
    kind: str
    subject: str
    amount: int
    at: str


@dataclass(frozen=True, slots=True)
class Book:
    """The amounts and entries inside the transaction of one key."""

    connection: sqlite3.Connection
    key: str

    def amount(self, subject: str) -> int | None:
        """The amount of a subject; None if there is no such subject."""
        row = self.connection.execute("SELECT amount FROM amount WHERE subject = ?", (subject,)).fetchone()
        return None if row is None else int(row[0])

    def enter(self, kind: str, subject: str, amount: int) -> int:
        """Change the amount of a subject, and say why. Returns the number of the entry."""
        self.connection.execute(
            "INSERT INTO amount VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            (subject, amount),
        )
        entered = self.connection.execute(
            "INSERT INTO entry (key, kind, subject, amount) VALUES (?, ?, ?, ?)", (self.key, kind, subject, amount)
        )
        return int(entered.lastrowid or 0)


class Ledger:
    """The ledger of one participant. Its file is opened before the participant is served."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # handlers run in threads; the connection is one

    @contextmanager
    def opened(self, path: Path, amounts: Mapping[str, int] | None = None) -> Generator[Ledger, None, None]:
        """Open the file inside the block; `amounts` are the first ones of subjects that it does not know yet."""
        assert self._connection is None, "this ledger is open already"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _connected(path, amounts or {})
        try:
            yield self
        finally:
            with self._lock:
                self._connection.close()
                self._connection = None

    def execute(self, key: str, output: type[Out], effect: Callable[[Book], Out]) -> Out:
        """Have the effect once for the key and return its output, now and whenever the key comes again.

        :raises Refused: what the effect raised first, or that the key was undone; there is no effect then.
        """
        with self._transaction() as connection:
            if _is_new(connection, key, "succeeded"):
                _have(connection, key, effect)
            state, outcome = _verdict(connection, key)
        match state:
            case "succeeded":
                return decode(payload_pb2.Payload.FromString(outcome), output)
            case "refused":
                error = payload_pb2.Error.FromString(outcome)
                raise Refused(error.code, error.message, data=error.data, stored=True)
            case _:
                raise Refused("UNDONE", "this call was undone; it has no effect any more", stored=True)

    def compensate(self, execute_key: str, output: type[Out], undo: Callable[[Book, Out], None]) -> None:
        """Undo the effect of the key once, from the output that is kept here; see to it that it never happens later."""
        with self._transaction() as connection:
            if _is_new(connection, execute_key, "undone"):
                return
            state, outcome = _verdict(connection, execute_key)
            if state == "succeeded":
                undo(Book(connection, execute_key), decode(payload_pb2.Payload.FromString(outcome), output))
                connection.execute("UPDATE verdict SET state = 'undone' WHERE key = ?", (execute_key,))

    def amounts(self) -> dict[str, int]:
        """The amounts as they stand."""
        with self._lock:
            return dict(self._open_connection().execute("SELECT subject, amount FROM amount ORDER BY subject"))

    def entries(self) -> list[Entry]:
        """All effects so far, in order."""
        with self._lock:
            rows = self._open_connection().execute("SELECT id, key, kind, subject, amount, at FROM entry ORDER BY id")
            return [Entry(*row) for row in rows]

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            connection = self._open_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the ledger is not open")
        return self._connection


def _connected(path: Path, amounts: Mapping[str, int]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    [(mode,)] = connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    [(synchronous,)] = connection.execute("PRAGMA synchronous")
    assert (mode, synchronous) == ("wal", 2), "an answered call must survive a power cut"
    connection.executescript(SCHEMA)
    connection.executemany("INSERT OR IGNORE INTO amount VALUES (?, ?)", amounts.items())
    return connection


def _is_new(connection: sqlite3.Connection, key: str, state: str) -> bool:
    inserted = connection.execute("INSERT OR IGNORE INTO verdict (key, state) VALUES (?, ?)", (key, state))
    return inserted.rowcount == 1


def _have(connection: sqlite3.Connection, key: str, effect: Callable[[Book], Out]) -> None:
    """Have the effect and keep its output; of an effect that is refused, keep nothing but the refusal."""
    connection.execute("SAVEPOINT effect")
    try:
        state, outcome = "succeeded", encode(effect(Book(connection, key))).SerializeToString()
    except Refused as refused:
        connection.execute("ROLLBACK TO effect")
        error = payload_pb2.Error(code=refused.code, message=refused.message, data=encode(refused.data))
        state, outcome = "refused", error.SerializeToString()
    connection.execute("UPDATE verdict SET state = ?, outcome = ? WHERE key = ?", (state, outcome, key))


def _verdict(connection: sqlite3.Connection, key: str) -> tuple[str, bytes]:
    row = connection.execute("SELECT state, outcome FROM verdict WHERE key = ?", (key,)).fetchone()
    return cast("tuple[str, bytes]", row)
