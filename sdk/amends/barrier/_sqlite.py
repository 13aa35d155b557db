"""SQLite, by sqlite3 and by aiosqlite. `BEGIN IMMEDIATE`: a transaction that reads first cannot always write later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from amends.barrier._database import Asynchronous, Plain, in_transaction, to_the_end
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
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    @asynccontextmanager
    async def savepoint(self, tx: Sync) -> AsyncGenerator[None, None]:
        tx.execute("SAVEPOINT amends_effect")
        try:
            yield
        except BaseException:
            if tx.in_transaction:  # some errors have rolled back everything already
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
                await to_the_end(connection.commit())
            except BaseException:
                await to_the_end(connection.rollback())
                raise

    @asynccontextmanager
    async def savepoint(self, tx: Async) -> AsyncGenerator[None, None]:
        await tx.execute("SAVEPOINT amends_effect")
        try:
            yield
        except Exception:  # whatever else comes, a cancellation for one, ends the whole transaction
            if tx.in_transaction:
                await tx.execute("ROLLBACK TO amends_effect")
            raise
        await tx.execute("RELEASE amends_effect")

    async def fetch(self, tx: Async, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        return await to_the_end(_fetched(tx, statement.sqlite, parameters))


async def _fetched(tx: aiosqlite.Connection, sql: str, parameters: Mapping[str, Value]) -> Sequence[Sequence[object]]:
    """Never cancelled half way: a statement that was not read to its end lets nobody set a savepoint."""
    async with tx.execute(sql, parameters) as cursor:
        cursor.row_factory = None
        return [tuple(row) for row in await cursor.fetchall()]
