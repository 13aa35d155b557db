"""The stores that the conformance tests run over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import Store
from amends_server.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "deep" / "amends.db")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "amends.db")
    await made.open()
    yield made
    await made.close()
