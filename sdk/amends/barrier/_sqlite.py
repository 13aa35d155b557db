"""SQLite, by sqlite3 and by aiosqlite. `BEGIN IMMEDIATE`: a transaction that reads first cannot always write later.

Transactions begin and end by SQL: with `autocommit=True` the methods `commit` and `rollback` do nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from amends.barrier._database import Asynchronous, Plain, ended, in_transaction, to_the_end
from amends.barrier._statements import Statement, Value

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite

Sync = TypeVar("Sync", bound="sqlite3.Connection")
Async = TypeVar("Async", bound="aiosqlite.Connection")


class Sqlite3(Plain, Generic[Sync]):
    """`sqlite3` of the standard library."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Sync]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Sync, None]:
        with self._connect() as connection:
            if connection.in_transaction:
                raise in_transaction()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # some errors have rolled back everything already
                    connection.execute("ROLLBACK")
                raise

    @asynccontextmanager
    async def savepoint(self, tx: Sync) -> AsyncGenerator[None, None]:
        tx.execute("SAVEPOINT amends_effect")
        try:
            yield
        except BaseException as error:
            if not tx.in_transaction:
                raise ended() from error
            tx.execute("ROLLBACK TO amends_effect")
            raise
        tx.execute("RELEASE amends_effect")

    async def fetch(self, tx: Sync, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        cursor = tx.cursor()
        cursor.row_factory = None  # the connection's may make anything of a row
        rows: list[Sequence[object]] = cursor.execute(statement.sqlite, parameters).fetchall()
        return rows


class Aiosqlite(Asynchronous, Generic[Async]):
    """`aiosqlite`. A call to it that is cancelled is done nevertheless, so the end of a transaction is waited for."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Async]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Async, None]:
        async with self._connect() as connection:
            if connection.in_transaction:
                raise in_transaction()
            try:
                await connection.execute("BEGIN IMMEDIATE")
                yield connection
                await to_the_end(_run(connection, "COMMIT"))
            except BaseException:
                await to_the_end(_rolled_back(connection))
                raise

    @asynccontextmanager
    async def savepoint(self, tx: Async) -> AsyncGenerator[None, None]:
        await tx.execute("SAVEPOINT amends_effect")
        try:
            yield
        except Exception as error:  # whatever else comes, a cancellation for one, ends the whole transaction
            if not tx.in_transaction:
                raise ended() from error
            await tx.execute("ROLLBACK TO amends_effect")
            raise
        await tx.execute("RELEASE amends_effect")

    async def fetch(self, tx: Async, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        return await to_the_end(_fetched(tx, statement.sqlite, parameters))


async def _run(connection: aiosqlite.Connection, sql: str) -> None:
    async with connection.execute(sql):
        pass


async def _rolled_back(connection: aiosqlite.Connection) -> None:
    """A `BEGIN` that was cancelled may be under way still: what is run here comes after it."""
    await _run(connection, "SELECT 1")
    if connection.in_transaction:
        await _run(connection, "ROLLBACK")


async def _fetched(tx: aiosqlite.Connection, sql: str, parameters: Mapping[str, Value]) -> Sequence[Sequence[object]]:
    """Never cancelled half way: a statement that was not read to its end lets nobody set a savepoint."""
    async with tx.execute(sql, parameters) as cursor:
        cursor.row_factory = None
        return [tuple(row) for row in await cursor.fetchall()]
