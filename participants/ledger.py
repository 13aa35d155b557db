"""What a participant remembers: amounts and an append-only ledger of effects, in one file, behind a barrier.

The barrier keeps the verdict of each key in the transaction of the effect that it is about.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amends import barrier

BUSY_TIMEOUT_S = 5.0  # for another process on the same file

SCHEMA = """
CREATE TABLE IF NOT EXISTS amount (subject TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
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
    """The ledger of one participant. Its file is opened before the participant is served.

    `barrier` is for the actions of the participant; what they get of it makes a `Book`.
    """

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # handlers run in threads; the connection is one
        self.barrier = barrier.sqlite3(self._lent)

    @contextmanager
    def opened(self, path: Path, amounts: Mapping[str, int] | None = None) -> Generator[Ledger, None, None]:
        """Open the file inside the block; `amounts` are the first ones of subjects that it does not know yet."""
        assert self._connection is None, "this ledger is open already"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _connected(path, amounts or {})
        try:
            self.barrier.create_table()
            yield self
        finally:
            with self._lock:
                self._connection.close()
                self._connection = None

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
    def _lent(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            yield self._open_connection()

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
