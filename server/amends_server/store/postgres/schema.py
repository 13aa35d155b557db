"""Brings a PostgreSQL database up to date, also when several orchestrators begin to do so at the same time."""

from __future__ import annotations

import asyncpg

from amends_server.store.migration import Migration, pending
from amends_server.store.postgres.connections import MIGRATION_TIMEOUT_S, Connections
from amends_server.store.postgres.statements import Db, fetch, statement, texts


async def migrate(connections: Connections, migrations: list[Migration]) -> None:
    """Apply in one transaction what was not applied yet, and where nothing was, make a place first to note that.

    A database that is up to date is only read, so that its user needs no right to change it.

    :raises Unavailable: if that fails, or if the database was made by a newer program.
    """

    async def begin(db: Db) -> None:
        await db.execute(statement("create_migration").sql)  # if others do it too, one waits, and its try is repeated
        await db.execute(statement("insert_migration_lock").sql)

    async def apply(db: Db) -> None:
        await db.execute(statement("lock_migration").sql, timeout=MIGRATION_TIMEOUT_S)
        for migration in pending(await _applied(db), migrations):
            await db.execute(migration.script, timeout=MIGRATION_TIMEOUT_S)
            await fetch(db, "note_migration", number=migration.number, name=migration.name)

    if await missing(connections, migrations):
        await connections.migrate(begin)
        await connections.migrate(apply, texts(("applied",), ("note_migration",)))


async def missing(connections: Connections, migrations: list[Migration]) -> list[Migration]:
    """Return what was not applied yet. Nothing is changed.

    :raises Unavailable: if that cannot be read, or if the database was made by a newer program.
    """
    return pending(await connections.read(_applied), migrations)


async def _applied(db: Db) -> list[tuple[int, str]]:
    try:
        return [(row["number"], row["name"]) for row in await fetch(db, "applied")]
    except asyncpg.UndefinedTableError:
        return []
