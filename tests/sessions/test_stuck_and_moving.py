"""Participants that read nothing any more, or take nothing any more, or move while they have calls."""

from __future__ import annotations

import pytest

from amends_server.engine.commands import Succeeded
from amends_server.engine.payload import Json
from amends_server.transport import session
from tests.sessions.calls import Calls
from tests.sessions.raw import raw

LARGE, MANY = Json(f'"{"x" * 1_000_000}"'), 12
"""Far more than gRPC keeps for somebody who reads nothing."""


async def test_calls_that_a_stream_is_full_of_hold_up_no_others_once_their_time_is_up(calls: Calls) -> None:
    async with raw() as worker:
        worker.deaf = True
        calls.send(worker, input=LARGE, timeout_us=300_000)
        await worker.until_opened()
        worker.deaf = False
        for _ in range(MANY):
            calls.send(worker, input=LARGE, timeout_us=300_000)
        calls.send(worker, input=Json("1"))
        while (call := await worker.call()).execute.input.json != "1":
            pass
        assert worker.opened > 1
        worker.succeed(call)
        while not isinstance(await calls.verdict(), Succeeded):
            pass


async def test_a_participant_that_loses_its_credits_is_given_a_new_session(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STARVED_S", 0.1)
    async with raw(call_credits=1) as worker:
        for _ in range(3):
            calls.send(worker)
        for _ in range(3):
            worker.succeed(await worker.call(), call_credits=0)  # and never gives one back
            assert isinstance(await calls.verdict(), Succeeded)
        assert worker.opened == 3


async def test_a_call_that_was_not_begun_where_the_participant_was_is_made_where_it_is(calls: Calls) -> None:
    async with raw() as before, raw() as after:
        calls.send(before, attempt=7)
        moved = await before.call()
        calls.send(after)
        after.succeed(await after.call())
        assert isinstance(await calls.verdict(), Succeeded)
        before.decline(moved)
        again = await after.call()
        assert (again.execute.call.key, again.execute.call.attempt) == (moved.execute.call.key, 7)
        after.succeed(again)
        assert isinstance(await calls.verdict(), Succeeded)
