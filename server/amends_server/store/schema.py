"""Brings an SQLite file up to date, in one transaction with the note that it was done."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from amends_server.store.migration import Migration, pending

_CREATE = "create table if not exists migration (number integer primary key, name text not null)"
_APPLIED = "select number, name from migration order by number"
_NOTE = "insert into migration (number, name) values (?, ?)"


def migrate(db: sqlite3.Connection, migrations: list[Migration]) -> None:
    """Apply in one transaction what was not applied yet. A connection in autocommit mode is needed.

    :raises Unavailable: if the database was made by a newer program.
    """
    db.execute("begin immediate")
    try:
        db.execute(_CREATE)
        for migration in pending(db.execute(_APPLIED).fetchall(), migrations):
            _apply(db, migration)
        db.execute("commit")
    finally:
        if db.in_transaction:
            db.execute("rollback")


def missing(path: Path, migrations: list[Migration]) -> list[Migration]:
    """Return what was not applied yet to the file, all if there is none. Nothing is changed.

    :raises Unavailable: if the database was made by a newer program.
    """
    if not path.exists():
        return migrations
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        (made,) = db.execute("select count(*) from sqlite_master where name = 'migration'").fetchone()
        return pending(db.execute(_APPLIED).fetchall() if made else [], migrations)
    finally:
        db.close()


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
