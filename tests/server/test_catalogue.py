"""The definitions in memory: how much of them is kept."""

from __future__ import annotations

import pytest

from amends_server import catalogue as catalogue_module
from tests.server.house import HandClock, House, MoodyStore, step


async def test_i42_definitions_are_kept_by_their_size_and_the_least_used_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = await House(MoodyStore(), HandClock()).open()
    first, second, third = [await house.register(step(name)) for name in ("a", "b", "c")]
    monkeypatch.setattr(catalogue_module, "KEPT_BYTES_MAX", 3 * len(first.stored.body))
    house.catalogue.kept("default", first.stored.digest)
    large = await house.register(step("d"), step("e"))
    kept = [house.catalogue.kept("default", one.stored.digest) for one in (first, second, third, large)]
    assert kept == [first, None, None, large]
    house.catalogue.forget("default", first.stored.digest)
    house.catalogue.forget("default", first.stored.digest)
    again = await house.catalogue.find("default", digest=first.stored.digest)
    assert house.catalogue.kept("default", first.stored.digest) is again
    monkeypatch.setattr(catalogue_module, "KEPT_BYTES_MAX", 1)
    alone = await house.register(step("f"))
    assert house.catalogue.kept("default", alone.stored.digest) is alone
    assert house.catalogue.kept("default", first.stored.digest) is None
    await house.close()
