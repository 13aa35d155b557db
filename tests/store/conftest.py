"""The stores that the conformance tests run over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends_server.store.memory import MemoryStore
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import Store
from amends_server.store.sqlite import SqliteStore
from tests.postgres import Database


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = make_store(request, tmp_path)
    await made.open()
    yield made
    await made.close()


def make_store(request: pytest.FixtureRequest, folder: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(folder / "deep" / "amends.db")
    database: Database = request.getfixturevalue("database")
    return PostgresStore(database.new_url())


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "amends.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def postgres_store(database: Database) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(database.new_url())
    await made.open()
    yield made
    await made.close()
