"""Fixtures of the acceptance tests: a world that is ready, in one process with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.harness import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An orchestrator on a file, the participant `worker`, and a client."""
    async with World.opened(tmp_path) as opened:
        yield opened
