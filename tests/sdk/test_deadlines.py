"""One timer for all calls in flight: each is over in time, never early, and once."""

from __future__ import annotations

import asyncio

from amends._deadlines import LEFT_BEHIND_MIN, Deadlines

PATIENCE_S = 30.0


class Told:
    """Who was told to be over, and when."""

    def __init__(self) -> None:
        self.over: dict[int, float] = {}
        self._told = asyncio.Event()
        self.deadlines = Deadlines(self._expire)

    def _expire(self, call_id: int) -> None:
        assert call_id not in self.over, "over twice"
        self.over[call_id] = asyncio.get_running_loop().time()
        self._told.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.over) < count:
                self._told.clear()
                await self._told.wait()


async def test_each_call_is_over_when_its_time_is_up_and_not_before() -> None:
    told, begun = Told(), asyncio.get_running_loop().time()
    delays_s = [0.03, 0.01, 0.02, 0.01, 0]
    for call_id, delay_s in enumerate(delays_s):
        told.deadlines.add(call_id, delay_s)
    await told.until(len(delays_s))
    assert all(told.over[call_id] - begun >= delay_s for call_id, delay_s in enumerate(delays_s))


async def test_a_shorter_time_that_comes_later_is_met_first() -> None:
    told = Told()
    told.deadlines.add(1, 3_600)
    told.deadlines.add(2, 0.001)
    await told.until(1)
    assert list(told.over) == [2]


async def test_what_was_answered_is_not_over_and_holds_up_nothing() -> None:
    told = Told()
    for call_id in range(5):
        told.deadlines.add(call_id, 0.005)
    for call_id in (0, 1, 3):
        told.deadlines.remove(call_id)
    told.deadlines.add(9, 0.01)
    await told.until(3)
    assert set(told.over) == {2, 4, 9}


async def test_answered_calls_leave_nothing_behind_for_long() -> None:
    """Their time may be up in a day only: then they would be in memory until then."""
    told = Told()
    for call_id in range(10 * LEFT_BEHIND_MIN):
        told.deadlines.add(call_id, 86_400)
        told.deadlines.remove(call_id)
    assert len(told.deadlines._entries) <= LEFT_BEHIND_MIN + 1
    told.deadlines.clear()


async def test_a_call_that_expires_may_begin_another() -> None:
    over: list[int] = []
    finished = asyncio.Event()

    def expire(call_id: int) -> None:
        over.append(call_id)
        if call_id < 3:
            deadlines.add(call_id + 1, 0)
        else:
            finished.set()

    deadlines = Deadlines(expire)
    deadlines.add(1, 0)
    async with asyncio.timeout(PATIENCE_S):
        await finished.wait()
    assert over == [1, 2, 3]
