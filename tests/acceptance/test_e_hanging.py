"""Participants that hang: their sagas wait, those of others get on, and in the end each has had its effects once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from amends import SagaHandle, SagaStatus
from amends.errors import ResourceExhausted
from tests.acceptance import cramped
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    WAIT_S,
    Gate,
    Process,
    ScriptedParticipant,
    World,
    definition,
    step,
)

COMPLETED, COMPENSATED = SagaStatus.COMPLETED, SagaStatus.COMPENSATED

CRAWL = step("crawl", participant="slow", timeout_s=600)
STUCK = definition("stuck", CRAWL)
LATER = definition("later", "one", CRAWL)
LIMITED = definition("limited", "one", CRAWL, deadline_s=1.0)
QUICK = definition("quick", "one", "two")

AGAIN_S = 0.05


@pytest.fixture
async def world(tmp_path: Path, link: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for module, name, value in cramped.SET:
        monkeypatch.setattr(module, name, value)
    async with World.opened(tmp_path, link=link) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Process:
    return Process(tmp_path / "amends.db", program="tests.acceptance.cramped")


@asynccontextmanager
async def hanging(world: World, *, sessions: bool = False) -> AsyncIterator[Gate]:
    """Register a participant that takes calls and answers none before its gate is open, and all definitions."""
    slow, gate = ScriptedParticipant("slow", world.ledger, sessions=sessions), Gate()
    slow.on("crawl", gate.before())
    await world.add_participant(slow)
    for each in (STUCK, LATER, LIMITED, QUICK):
        await world.client.register(each)
    try:
        yield gate
    finally:
        await slow.close()


async def start_all(world: World) -> list[SagaHandle[object]]:
    """Start sagas that begin with the participant that hangs, until one is refused."""
    begun: list[SagaHandle[object]] = []
    while True:
        try:
            begun.append(await world.client.start("stuck", None, id=f"stuck{len(begun)}"))
        except ResourceExhausted as refused:
            if (refused.reason, refused.metadata.get("participant")) != ("OVERLOADED", "slow"):
                raise
            return begun


async def start(world: World, name: str, saga_id: str) -> SagaHandle[object]:
    """Start a saga as soon as there is room, as a client does that is told to try again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await world.client.start(name, None, id=saga_id)
            except ResourceExhausted as refused:
                if refused.metadata.get("participant") == "slow":  # it does not begin there
                    raise
                await asyncio.sleep(AGAIN_S)


async def start_later(world: World) -> list[SagaHandle[object]]:
    """Start sagas that come to the participant that hangs in their second step, and wait until all are there."""
    begun = [await start(world, "later", f"later{i}") for i in range(cramped.PLACES)]
    for saga in begun:
        await world.until(saga.id, "step_dispatched", "crawl")
    return begun


async def ends(sagas: Iterable[SagaHandle[object]]) -> set[SagaStatus]:
    async with asyncio.timeout(WAIT_S):
        return {(await saga.wait()).status for saga in sagas}


@OVER_BOTH_LINKS
async def test_e48_sagas_of_a_participant_that_hangs_leave_room_for_others(world: World, link: str) -> None:
    async with hanging(world, sessions=link == "session") as gate:
        stuck = await start_all(world)
        assert len(stuck) == cramped.PLACES / 2
        later = await start_later(world)
        await gate.reached(8)  # now it has its part of the places, and whatever else comes to it is put off
        for i in range(2 * cramped.PLACES):
            assert await ends([await start(world, "quick", f"quick{i}")]) == {COMPLETED}
        limited = [await start(world, "limited", f"limited{i}") for i in range(3)]
        assert await ends(limited) == {COMPENSATED}  # their deadline counts also while they are not in memory
        cancelled = next(saga for saga in later if not world.ledger.calls(saga.id, "crawl"))
        await cancelled.cancel("changed my mind")
        assert await ends([cancelled]) == {COMPENSATED}
        assert world.ledger.names(cancelled.id) == ["one", "undo one"]
        assert gate.waiting == 8
        gate.release()
        later.remove(cancelled)
        assert await ends([*stuck, *later]) == {COMPLETED}
        assert [world.ledger.names(saga.id) for saga in stuck] == [["crawl"]] * len(stuck)
        assert [world.ledger.names(saga.id) for saga in later] == [["one", "crawl"]] * len(later)


async def test_i28_after_kill_9_those_that_do_not_need_a_participant_that_hangs_are_brought_to_their_end(
    killable: World, server: Process
) -> None:
    at_two = Gate()
    async with hanging(killable) as gate:
        waiting = [*await start_all(killable), *await start_later(killable)]
        killable.worker.on("two", at_two.before())
        others = [await start(killable, "quick", f"z{i}") for i in range(2)]  # the last ones that recovery comes to
        await at_two.reached(len(others))
        await server.kill()
        at_two.release()
        await server.start()
        assert await ends(others) == {COMPLETED}
        assert await ends([await start(killable, "quick", "new")]) == {COMPLETED}
        gate.release()
        assert await ends(waiting) == {COMPLETED}
        for saga in waiting:
            steps = ["crawl"] if saga.id.startswith("stuck") else ["one", "crawl"]
            assert killable.ledger.effects(saga.id) == steps
