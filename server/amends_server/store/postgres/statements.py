"""The statements of `sql/postgres.sql`, with their parameters by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import asyncpg

from amends_server.store.queries import load_queries

Db: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
"""A connection; which transaction it is in is its owner's business."""

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_QUERIES = load_queries("postgres")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with numbered places, and the name of what stands in each."""

    sql: str
    names: tuple[str, ...]


@cache
def statement(*parts: str) -> Statement:
    """Return the statement that those parts of the file add up to."""
    text = "".join(_QUERIES[part] for part in parts)
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    return Statement(_PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text), names)


def texts(*statements: Sequence[str]) -> tuple[str, ...]:
    """Return the SQL of statements, each given by its parts."""
    return tuple(statement(*parts).sql for parts in statements)


async def fetch(db: Db, *parts: str, **values: object) -> Sequence[asyncpg.Record]:
    """Run a statement and return its rows. Values that it does not name are left out."""
    stated = statement(*parts)
    return await db.fetch(stated.sql, *[values[name] for name in stated.names])


async def commit_durably(db: Db) -> None:
    """See that a commit of this session is on disk when it returns, also that of a synchronous standby."""
    if await db.fetchval("show synchronous_commit") in ("off", "local"):
        await db.execute("set synchronous_commit to on")
