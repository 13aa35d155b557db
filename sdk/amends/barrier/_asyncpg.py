"""PostgreSQL, by asyncpg."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from amends.barrier._database import Asynchronous, in_transaction, unbroken
from amends.barrier._statements import Statement, Value

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

Pg = TypeVar("Pg", bound="asyncpg.Connection[Any] | PoolConnectionProxy[Any]")


class Asyncpg(Asynchronous, Generic[Pg]):
    """Connections of asyncpg, or of its pool."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Pg]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Pg, None]:
        async with self._connect() as connection:
            if connection.is_in_transaction():
                raise in_transaction()
            async with unbroken(connection.transaction()):
                yield connection

    def savepoint(self, tx: Pg) -> AbstractAsyncContextManager[object]:
        return tx.transaction()

    async def fetch(self, tx: Pg, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        rows = await tx.fetch(statement.numbered, *(parameters[name] for name in statement.names))
        return [tuple(row) for row in rows]
