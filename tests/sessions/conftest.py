"""An orchestrator in this process, on a file, and a client of it; or its way to participants alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends import Client
from amends_server.app import Server, serving
from amends_server.clock import SystemClock
from amends_server.config import load_settings
from amends_server.transport.links import Transport
from tests.sessions.calls import Calls, ignore


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path / 'amends.db'}", drain_s=1)
    async with serving(settings) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.address) as opened:
        yield opened


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    transport = Transport(SystemClock(), 1 << 20, allows=lambda address: True, late=ignore)
    yield Calls(transport)
    await transport.close()
