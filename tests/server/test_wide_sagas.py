"""Sagas of many parallel steps: what one reply costs must not grow with the replies that are still to come (I41)."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

from tests.server.house import HandClock, House, MoodyStore, step

FEW, MANY = 50, 400


async def calls_of_python(steps: int) -> int:
    """Run a saga whose steps are all under way at once; return how many calls of our code it took."""
    house = await House(MoodyStore(), HandClock()).open()
    entry = await house.register(*(step(f"s{i}") for i in range(steps)))
    await house.start(entry)
    await house.sent(steps)
    counted: Counter[bool] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            counted["amends_server" in frame.f_code.co_filename] += 1

    sys.setprofile(count)
    try:
        for call in range(steps):
            house.answer(call)
    finally:
        sys.setprofile(None)
    await house.until(lambda: house.journal.pending == 0)
    assert await house.status() == "COMPLETED"
    await house.close()
    return counted[True]


async def test_a_reply_costs_the_same_however_many_are_outstanding() -> None:
    few, many = await calls_of_python(FEW), await calls_of_python(MANY)
    assert many / MANY < 2 * few / FEW, f"{few / FEW:.0f} calls a reply of {FEW} steps, {many / MANY:.0f} of {MANY}"
