"""Numbered migrations: SQL files that bring a database up to date, in one transaction with the note that they ran."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from importlib.resources import files

from amends_server.store.protocol import Unavailable

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

_CREATE = "create table if not exists migration (number integer primary key, name text not null)"
_APPLIED = "select number, name from migration order by number"
_NOTE = "insert into migration (number, name) values (?, ?)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`."""

    number: int
    name: str
    script: str


def load_migrations(store: str) -> list[Migration]:
    """Return the store's migrations in order; their numbers are 1, 2, 3, …"""
    folder = files("amends_server.store") / "migrations" / store
    found: list[Migration] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        parts = _FILE_NAME.fullmatch(entry.name)
        assert parts is not None, f"{entry.name} is no migration's name"
        found.append(Migration(int(parts[1]), parts[2], entry.read_text(encoding="utf-8")))
    assert [migration.number for migration in found] == list(range(1, len(found) + 1)), "migrations have no holes"
    return found


def migrate(db: sqlite3.Connection, migrations: list[Migration]) -> None:
    """Apply in one transaction what was not applied yet. A connection in autocommit mode is needed.

    :raises Unavailable: if the database was made by a newer program.
    """
    db.execute("begin immediate")
    try:
        db.execute(_CREATE)
        applied: list[tuple[int, str]] = db.execute(_APPLIED).fetchall()
        _check_known(applied, migrations)
        for migration in migrations[len(applied) :]:
            _apply(db, migration)
        db.execute("commit")
    finally:
        if db.in_transaction:
            db.execute("rollback")


def _check_known(applied: list[tuple[int, str]], migrations: list[Migration]) -> None:
    known = [(migration.number, migration.name) for migration in migrations]
    if len(applied) > len(known):
        raise Unavailable(
            f"The database has schema {applied[-1][0]}, this program knows schemas up to {len(known)}: it was used by "
            "a newer version of amends, which has to be used from then on."
        )
    if applied != known[: len(applied)]:
        raise Unavailable("The database has another schema than this program: its migrations are different ones.")


def _apply(db: sqlite3.Connection, migration: Migration) -> None:
    for statement in _statements(migration.script):
        db.execute(statement)
    db.execute(_NOTE, (migration.number, migration.name))


def _statements(script: str) -> list[str]:
    """Split a script; Python's own `executescript` would end the transaction that the migration runs in."""
    found: list[str] = []
    gathered = ""
    *pieces, rest = script.split(";")
    for piece in pieces:
        gathered += piece + ";"
        if sqlite3.complete_statement(gathered):  # and not a semicolon in a text or a comment
            found.append(gathered)
            gathered = ""
    assert not (gathered + rest).strip(), f"a statement without end: {gathered}{rest}"
    return found
