"""Every kind of barrier that there is, by name, each with handlers that write to a table of effects by its driver."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import aiosqlite
import asyncpg
import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from amends import barrier

# In the order of their ids: {id} is a column that counts.
EFFECTS = "CREATE TABLE IF NOT EXISTS effect ({id}, key TEXT NOT NULL, kind TEXT NOT NULL)"

Write = Callable[[Any, str, str], Any]
"""Writes an effect by a driver: the transaction, the key, the kind."""


@dataclass(frozen=True)
class Kind:
    """A way to make a barrier. `make` gets the place of the database, a file or a URL, and what closes things."""

    name: str
    postgres: bool
    make: Callable[[str, AsyncExitStack], Any]
    write: Write


def _by_text(tx: Any, key: str, kind: str) -> Any:
    return tx.execute(text("INSERT INTO effect (key, kind) VALUES (:key, :kind)"), {"key": key, "kind": kind})


def _by_marks(tx: Any, key: str, kind: str) -> Any:
    return tx.execute("INSERT INTO effect (key, kind) VALUES (?, ?)", (key, kind))


def _by_percent(tx: Any, key: str, kind: str) -> Any:
    return tx.execute("INSERT INTO effect (key, kind) VALUES (%s, %s)", (key, kind))


def _by_numbers(tx: Any, key: str, kind: str) -> Any:
    return tx.execute("INSERT INTO effect (key, kind) VALUES ($1, $2)", key, kind)


def opened(path: str) -> sqlite3.Connection:
    """A connection whose settings do what they can to disturb."""
    connection = sqlite3.connect(path, timeout=20, check_same_thread=False)
    connection.row_factory = lambda cursor, row: {"row": row}
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def shared(path: str, stack: AsyncExitStack) -> Callable[[], Any]:
    """One connection for all threads, with its lock."""
    connection, lock = opened(path), Lock()
    stack.callback(connection.close)

    @contextmanager
    def lend() -> Iterator[sqlite3.Connection]:
        with lock:
            yield connection

    return lend


def shared_async(path: str, stack: AsyncExitStack) -> Callable[[], Any]:
    """One connection for all calls, with its lock; opened for the first."""
    lock = asyncio.Lock()
    connections: list[aiosqlite.Connection] = []

    @asynccontextmanager
    async def lend() -> AsyncIterator[aiosqlite.Connection]:
        async with lock:
            if not connections:
                connections.append(await aiosqlite.connect(path, timeout=20))
                stack.push_async_callback(connections[0].close)
            yield connections[0]

    return lend


@asynccontextmanager
async def by_asyncpg(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def by_psycopg_async(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


def engine(url: str) -> Any:
    return create_engine(dialect(url, "sqlite", "postgresql+psycopg"), poolclass=NullPool)


def async_engine(url: str) -> Any:
    return create_async_engine(dialect(url, "sqlite+aiosqlite", "postgresql+asyncpg"), poolclass=NullPool)


def dialect(url: str, sqlite: str, postgres: str) -> str:
    return url.replace("postgresql", postgres, 1) if url.startswith("postgresql:") else f"{sqlite}:///{url}"


SQLITE = [
    Kind("sqlite3", False, lambda path, _: barrier.sqlite3(lambda: closing(opened(path))), _by_marks),
    Kind("sqlite3-shared", False, lambda path, stack: barrier.sqlite3(shared(path, stack)), _by_marks),
    Kind("aiosqlite", False, lambda path, _: barrier.aiosqlite(lambda: aiosqlite.connect(path, timeout=20)), _by_marks),
    Kind("aiosqlite-shared", False, lambda path, stack: barrier.aiosqlite(shared_async(path, stack)), _by_marks),
]
POSTGRES = [
    Kind("asyncpg", True, lambda url, _: barrier.asyncpg(lambda: by_asyncpg(url)), _by_numbers),
    Kind("psycopg", True, lambda url, _: barrier.psycopg(lambda: psycopg.connect(url)), _by_percent),
    Kind("psycopg-async", True, lambda url, _: barrier.psycopg_async(lambda: by_psycopg_async(url)), _by_percent),
]
SQLALCHEMY = [
    kind
    for postgres in (False, True)
    for kind in (
        Kind("core", postgres, lambda url, _: barrier.sqlalchemy(engine(url).connect), _by_text),
        Kind("session", postgres, lambda url, _: barrier.sqlalchemy(sessionmaker(engine(url))), _by_text),
        Kind("async-core", postgres, lambda url, _: barrier.sqlalchemy_async(async_engine(url).connect), _by_text),
        Kind(
            "async-session",
            postgres,
            lambda url, _: barrier.sqlalchemy_async(async_sessionmaker(async_engine(url))),
            _by_text,
        ),
    )
]
KINDS = [*SQLITE, *POSTGRES, *SQLALCHEMY]


async def done(work: Any) -> Any:
    """What a driver's call gives, be it plain or not."""
    return await work if isinstance(work, Awaitable) else work
