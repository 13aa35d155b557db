"""Numbered migrations: SQL files that bring a database up to date, and which of them a database still needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from amends_server.store.protocol import Unavailable

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


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


def pending(applied: Sequence[tuple[int, str]], migrations: list[Migration]) -> list[Migration]:
    """Return the migrations that come after those that were applied: numbers and names, in order.

    :raises Unavailable: if the database was made by a newer program, or by another one.
    """
    known = [(migration.number, migration.name) for migration in migrations]
    if len(applied) > len(known):
        raise Unavailable(
            f"The database has schema {applied[-1][0]}, this program knows schemas up to {len(known)}: it was used by "
            "a newer version of amends, which has to be used from then on."
        )
    if list(applied) != known[: len(applied)]:
        raise Unavailable("The database has another schema than this program: its migrations are different ones.")
    return migrations[len(applied) :]


def is_new(pending: Sequence[Migration]) -> bool:
    """Tell whether a database that needs these migrations was never used."""
    return any(migration.number == 1 for migration in pending)
