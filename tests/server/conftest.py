"""The house that tests of the runner live in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.house import HandClock, House, MoodyStore


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = await House(MoodyStore(), HandClock()).open()
    yield house
    house.store.gate.set()
    house.store.down = False
    await house.close()
