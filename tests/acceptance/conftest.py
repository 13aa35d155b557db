"""Fixtures of the acceptance tests: a world that is ready, in one process with the test or with a server to kill."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance import harness_orchestrator
from tests.acceptance.harness import UNARY, Process, World


@pytest.fixture(scope="session", autouse=True)
def stores(request: pytest.FixtureRequest) -> None:
    """`AMENDS_TEST_STORE=postgresql` runs the tests over PostgreSQL instead of SQLite."""
    if os.environ.get("AMENDS_TEST_STORE") == "postgresql":
        harness_orchestrator.database = request.getfixturevalue("database")


@pytest.fixture
def link() -> str:
    """How the worker takes its calls, unless a test says OVER_BOTH_LINKS."""
    return UNARY


@pytest.fixture
async def world(tmp_path: Path, link: str) -> AsyncIterator[World]:
    """An orchestrator on a file, the participant `worker`, and a client."""
    async with World.opened(tmp_path, link=link) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Process:
    """The orchestrator of `killable`: a process of its own."""
    return Process(tmp_path / "amends.db")


@pytest.fixture
async def killable(tmp_path: Path, server: Process, link: str) -> AsyncIterator[World]:
    """A world whose orchestrator is `server`, which a test may kill and start again."""
    async with World.opened(tmp_path, server, link=link) as opened:
        yield opened
