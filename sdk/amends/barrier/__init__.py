"""The barrier: makes calls effective once, whatever is repeated, late, out of order or broken off by a crash.

It is one table in the participant's own database, `amends_barrier`, written in the transaction of the effect:

    once = barrier.asyncpg(pool.acquire)

    @inventory.action(barrier=once)
    async def reserve(request: Reserve, call: Call, tx: Connection) -> Hold: ...

    @reserve.compensation
    async def release(request: Reserve, done: Hold, call: Call, tx: Connection) -> None: ...

Each function here takes what opens a connection for one call: anything that gives a context manager, such as a pool's
`acquire`, an engine's `connect` or a sessionmaker. No driver is imported here; that is left to whoever uses one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from amends.barrier import _asyncpg, _psycopg, _sqlalchemy, _sqlite
from amends.barrier._barriers import AGE_MIN, AsyncBarrier, AsyncOutsideBarrier, Barrier, OutsideBarrier
from amends.barrier._outside import Intent
from amends.barrier._statements import CREATE_INDEX, CREATE_TABLE
from amends.errors import BarrierError

__all__ = [
    "AGE_MIN",
    "POSTGRES_TABLE",
    "SQLITE_TABLE",
    "AsyncBarrier",
    "AsyncOutsideBarrier",
    "Barrier",
    "BarrierError",
    "Intent",
    "OutsideBarrier",
    "aiosqlite",
    "asyncpg",
    "psycopg",
    "psycopg_async",
    "sqlalchemy",
    "sqlalchemy_async",
    "sqlite3",
]

# For those who make their tables by migrations: what `create_table` does.
SQLITE_TABLE = f"{CREATE_TABLE.sqlite.strip()};\n{CREATE_INDEX.sqlite};\n"
POSTGRES_TABLE = f"{CREATE_TABLE.postgres.strip()};\n{CREATE_INDEX.postgres};\n"


def sqlite3(connect: Callable[[], AbstractContextManager[_sqlite.Sync]]) -> Barrier[_sqlite.Sync]:
    """The barrier in an SQLite file. A connection that threads share needs a lock of its own, `check_same_thread=False`
    and `synchronous=FULL`.
    """
    return Barrier(_sqlite.Sqlite3(connect))


def aiosqlite(connect: Callable[[], AbstractAsyncContextManager[_sqlite.Async]]) -> AsyncBarrier[_sqlite.Async]:
    """The barrier in an SQLite file, for async handlers. A connection that calls share needs a lock of its own."""
    return AsyncBarrier(_sqlite.Aiosqlite(connect))


def asyncpg(connect: Callable[[], AbstractAsyncContextManager[_asyncpg.Pg]]) -> AsyncBarrier[_asyncpg.Pg]:
    """The barrier in PostgreSQL: `barrier.asyncpg(pool.acquire)`."""
    return AsyncBarrier(_asyncpg.Asyncpg(connect))


def psycopg(connect: Callable[[], AbstractContextManager[_psycopg.Sync]]) -> Barrier[_psycopg.Sync]:
    """The barrier in PostgreSQL, for plain handlers: `barrier.psycopg(pool.connection)`."""
    return Barrier(_psycopg.Psycopg(connect))


def psycopg_async(connect: Callable[[], AbstractAsyncContextManager[_psycopg.Async]]) -> AsyncBarrier[_psycopg.Async]:
    """The barrier in PostgreSQL, for async handlers: `barrier.psycopg_async(pool.connection)`."""
    return AsyncBarrier(_psycopg.PsycopgAsync(connect))


def sqlalchemy(connect: Callable[[], AbstractContextManager[_sqlalchemy.Sync]]) -> Barrier[_sqlalchemy.Sync]:
    """The barrier in SQLite or PostgreSQL: `barrier.sqlalchemy(engine.connect)`, or with a `sessionmaker`."""
    return Barrier(_sqlalchemy.Sqlalchemy(connect))


def sqlalchemy_async(
    connect: Callable[[], AbstractAsyncContextManager[_sqlalchemy.Async]],
) -> AsyncBarrier[_sqlalchemy.Async]:
    """The same for async handlers: `barrier.sqlalchemy_async(engine.connect)`, or with an `async_sessionmaker`."""
    return AsyncBarrier(_sqlalchemy.SqlalchemyAsync(connect))
