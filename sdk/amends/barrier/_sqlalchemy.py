"""SQLite and PostgreSQL by SQLAlchemy: connections and ORM sessions, plain and asynchronous."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from amends.barrier._database import Asynchronous, Plain, in_transaction, unbroken
from amends.barrier._statements import Statement, Value

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

Sync = TypeVar("Sync", bound="Connection | Session")
Async = TypeVar("Async", bound="AsyncConnection | AsyncSession")


class Sqlalchemy(Plain, Generic[Sync]):
    """`Engine.connect`, or a `sessionmaker`."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Sync]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Sync, None]:
        with self._connect() as connection:
            if connection.in_transaction():
                raise in_transaction()
            with connection.begin():
                yield connection

    @asynccontextmanager
    async def savepoint(self, tx: Sync) -> AsyncGenerator[None, None]:
        with tx.begin_nested():
            yield

    async def fetch(self, tx: Sync, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        result = tx.execute(_text(statement, _dialect(tx).name), parameters)
        return [tuple(row) for row in result] if statement.gives_rows else []


class SqlalchemyAsync(Asynchronous, Generic[Async]):
    """`AsyncEngine.connect`, or an `async_sessionmaker`."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Async]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Async, None]:
        async with self._connect() as connection:
            if connection.in_transaction():
                raise in_transaction()
            async with unbroken(connection.begin()):
                yield connection

    def savepoint(self, tx: Async) -> AbstractAsyncContextManager[object]:
        return tx.begin_nested()

    async def fetch(self, tx: Async, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        result = await tx.execute(_text(statement, _async_dialect(tx).name), parameters)
        return [tuple(row) for row in result] if statement.gives_rows else []


def _dialect(tx: Connection | Session) -> Dialect:
    from sqlalchemy import Connection

    return tx.dialect if isinstance(tx, Connection) else tx.get_bind().dialect


def _async_dialect(tx: AsyncConnection | AsyncSession) -> Dialect:
    from sqlalchemy.ext.asyncio import AsyncConnection

    return tx.dialect if isinstance(tx, AsyncConnection) else tx.get_bind().dialect


@cache
def _text(statement: Statement, dialect: str) -> TextClause:
    from sqlalchemy import text

    match dialect:
        case "sqlite":
            return text(statement.sqlite)
        case "postgresql":
            return text(statement.postgres)
        case _:
            raise TypeError(f"the barrier knows SQLite and PostgreSQL, not {dialect}")
