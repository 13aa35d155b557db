"""PostgreSQL, by psycopg, plain and asynchronous."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from amends.barrier._database import Asynchronous, Plain, ended, in_transaction, unbroken
from amends.barrier._statements import Statement, Value

if TYPE_CHECKING:
    import psycopg

    Connection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

Sync = TypeVar("Sync", bound="psycopg.Connection[Any]")
Async = TypeVar("Async", bound="psycopg.AsyncConnection[Any]")


class Psycopg(Plain, Generic[Sync]):
    """`psycopg.Connection`."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Sync]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Sync, None]:
        with self._connect() as connection:
            _check_idle(connection)
            with connection.transaction():
                yield connection

    @asynccontextmanager
    async def savepoint(self, tx: Sync) -> AsyncGenerator[None, None]:
        with tx.transaction(), _still_inside(tx):
            yield

    async def fetch(self, tx: Sync, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        from psycopg.rows import tuple_row

        cursor = tx.cursor(row_factory=tuple_row).execute(statement.percent.encode(), parameters)
        return cursor.fetchall() if statement.gives_rows else []


class PsycopgAsync(Asynchronous, Generic[Async]):
    """`psycopg.AsyncConnection`."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Async]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Async, None]:
        async with self._connect() as connection:
            _check_idle(connection)
            async with unbroken(connection.transaction()):
                yield connection

    @asynccontextmanager
    async def savepoint(self, tx: Async) -> AsyncGenerator[None, None]:
        async with tx.transaction():
            with _still_inside(tx):
                yield

    async def fetch(self, tx: Async, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        from psycopg.rows import tuple_row

        cursor = await tx.cursor(row_factory=tuple_row).execute(statement.percent.encode(), parameters)
        return await cursor.fetchall() if statement.gives_rows else []


def _check_idle(connection: Connection) -> None:
    if not _is_idle(connection):
        raise in_transaction()


@contextmanager
def _still_inside(tx: Connection) -> Generator[None, None, None]:
    """Psycopg does not look whether there is a transaction to be rolled back when an exception leaves a block."""
    try:
        yield
    except BaseException as error:
        if _is_idle(tx):
            raise ended() from error
        raise


def _is_idle(connection: Connection) -> bool:
    from psycopg.pq import TransactionStatus

    return connection.info.transaction_status == TransactionStatus.IDLE
