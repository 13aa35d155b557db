"""Calls that a participant gives back unbegun: none is lost, and none takes the place of another for good."""

from __future__ import annotations

import asyncio

from amends_server.engine.commands import Succeeded, Unknown
from amends_server.engine.payload import Error
from tests.sessions.calls import Calls
from tests.sessions.raw import WAIT_S, raw

GONE = Unknown(Error("GONE", "There is no such participant any more."))


async def test_a_call_that_is_given_back_makes_room_for_itself(calls: Calls) -> None:
    async with raw() as worker:
        calls.send(worker, concurrency_max=1)
        worker.decline(await worker.call())
        again = await worker.call()
        calls.send(worker, concurrency_max=1)
        worker.succeed(again)
        assert isinstance(await calls.verdict(), Succeeded)
        worker.succeed(await worker.call())
        assert isinstance(await calls.verdict(), Succeeded)


async def test_a_call_that_is_given_back_by_a_participant_that_was_removed_is_told(calls: Calls) -> None:
    async with raw() as worker:
        calls.send(worker)
        call = await worker.call()
        calls.transport.forget("p", GONE)
        worker.decline(call)
        assert isinstance(await calls.verdict(), Unknown)


async def test_the_way_to_where_a_participant_was_is_closed_once_its_calls_are_given_back(calls: Calls) -> None:
    async with raw() as before, raw() as after:
        calls.send(before)
        moved = await before.call()
        calls.send(after)
        (leaving,) = calls.transport._retired
        before.decline(moved)
        await asyncio.wait_for(leaving, WAIT_S)
        for _ in range(2):
            after.succeed(await after.call())
            assert isinstance(await calls.verdict(), Succeeded)
