"""Who still needs a participant."""

from __future__ import annotations

from amends_server.service.usage import Usage
from amends_server.store.protocol import SagaKey
from tests.server.house import HandClock, House, MoodyStore, step


async def test_each_definition_is_looked_at_once_and_a_missing_one_stops_nobody() -> None:
    house = await House(MoodyStore(), HandClock()).open()
    gone, there = await house.register(step("a")), await house.register(step("b"))
    for number in range(5):
        await house.start(there, f"s{number}")
    await house.start(gone, "first")
    usage = Usage(house.store, house.catalogue)
    assert await usage.unfinished_saga_with("p") == SagaKey("default", "first")
    assert await usage.unfinished_saga_with("q") is None
    del house.store._definitions["default", gone.stored.digest]  # what no version of ours does
    house.catalogue.forget("default", gone.stored.digest)
    assert await usage.unfinished_saga_with("q") is None
    assert await usage.unfinished_saga_with("p") == SagaKey("default", "s0")
    await house.close()
