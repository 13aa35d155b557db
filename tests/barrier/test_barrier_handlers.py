"""Handlers that end the transaction of the barrier, or swallow its errors: nobody is told what is not so."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from amends import Call, Participant, Refused, barrier
from tests.barrier.kinds import KINDS, Kind
from tests.barrier.world import ERROR, SUCCESS, SYSTEM_ERROR, Do, World

ENDINGS = ("", "refuse", "break")
OWN_KINDS = [kind for kind in KINDS if "shared" not in kind.name]


@pytest.fixture(params=OWN_KINDS, ids=lambda kind: f"{kind.name}-{'postgresql' if kind.postgres else 'sqlite'}")
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    kind: Kind = request.param
    urls = request.getfixturevalue("postgres_urls") if kind.postgres else {}
    place = urls.get("read-committed", str(tmp_path / "participant.db"))
    async with AsyncExitStack() as stack:
        world = World(kind.make(place, stack), kind.write, place)
        await world.prepare()
        yield world


async def test_a_handler_that_commits_half_way_is_found_out_and_its_key_is_left_in_doubt(world: World) -> None:
    for then in ENDINGS:
        first = await world.execute(then, f"COMMIT, then {then}")
        assert (first.status, first.stored) == (SYSTEM_ERROR, False), then
        assert (world.effects(then), world.state(then)) == (["do"], "begun"), then
        for call in (world.execute, world.compensate):
            again = await call(then)
            assert (again.status, again.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR"), then
        assert (world.effects(then), len(world.handled)) == (["do"], 1), "never twice, and never said to be undone"
        world.handled.clear()


async def test_an_undoing_that_is_committed_half_way_is_never_taken_for_done(world: World) -> None:
    for then in ENDINGS:
        assert (await world.execute(then)).status == SUCCESS
        first = await world.compensate(then, f"COMMIT, then {then}")
        assert (first.status, first.stored) == (SYSTEM_ERROR, False), then
        assert world.state(then) == "undoing", then
        again = await world.compensate(then)
        assert (again.status, again.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR"), then
        late = await world.execute(then)
        assert (late.status, late.error.code) == (ERROR, "UNDONE"), then
        assert [each.split()[0] for each in world.effects(then)] == ["do", "undo"], then


async def test_a_handler_that_rolls_back_has_done_nothing(world: World) -> None:
    for then in ENDINGS:
        first = await world.execute(then, f"ROLLBACK, then {then}")
        assert (first.status, first.stored) == (SYSTEM_ERROR, False), then
        assert (world.effects(then), world.state(then)) == ([], None), then
        assert (await world.execute(then)).status == SUCCESS, then
        first = await world.compensate(then, f"ROLLBACK, then {then}")
        assert (first.status, first.stored) == (SYSTEM_ERROR, False), then
        assert (world.effects(then), world.state(then)) == (["do"], "succeeded"), then
        assert (await world.compensate(then)).status == SUCCESS, then
        assert [each.split()[0] for each in world.effects(then)] == ["do", "undo"], then


async def test_an_error_of_the_database_that_a_handler_swallows(world: World) -> None:
    """PostgreSQL has given such a transaction up, SQLite has not: it is whole, or nothing of it is there."""
    clash = "INSERT INTO amends_barrier (key, state, changed_at) VALUES ('', 'nonsense', 0)"
    participant = Participant("swallows")

    def behave(then: str) -> None:
        if then == "refuse":
            raise Refused("CLASH")

    if world.barrier.is_async:

        @participant.action(barrier=world.barrier, name="act")
        async def asynchronous(request: Do, call: Call, tx: Any) -> None:
            await world.write(tx, call.key, "do")
            try:
                if call.labels["then"] == "savepoint":
                    async with world.barrier._database.savepoint(tx):
                        await world.run(tx, clash)
                await world.run(tx, clash)
            except Exception:
                behave(call.labels["then"])

    else:

        @participant.action(barrier=world.barrier, name="act")
        def plain(request: Do, call: Call, tx: Any) -> None:
            world.write(tx, call.key, "do")
            try:
                world.run(tx, clash)
            except Exception:
                behave(call.labels["then"])

    world.stub = participant.servicer()
    swallowed = await world.execute("swallowed")
    assert (swallowed.status, world.effects("swallowed"), world.state("swallowed")) in (
        [(SYSTEM_ERROR, [], None)] if world.postgres else [(SUCCESS, ["do"], "succeeded")]
    )
    refused = await world.execute("refused", "refuse")
    assert (refused.status, refused.stored, refused.error.code) == (ERROR, True, "CLASH")
    assert (world.effects("refused"), world.state("refused")) == ([], "refused")
    if world.barrier.is_async:
        mended = await world.execute("mended", "savepoint")
        assert (mended.status, world.effects("mended")) == (SUCCESS, ["do"]), (
            "a savepoint of its own is a handler's right"
        )


class Autocommit(sqlite3.Connection):
    """Does what one of Python 3.12 does with `autocommit=True`, in any Python: these methods do nothing."""

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


@pytest.mark.parametrize("name", ["sqlite3", "aiosqlite"])
async def test_a_connection_whose_commit_does_nothing_loses_nothing(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "participant.db")
    made: Any = (
        barrier.sqlite3(lambda: closing(sqlite3.connect(path, factory=Autocommit)))
        if name == "sqlite3"
        else barrier.aiosqlite(lambda: aiosqlite.connect(path, factory=Autocommit))
    )
    world = World(made, next(kind.write for kind in KINDS if kind.name == name), path)
    await world.prepare()
    assert (await world.execute("a")).status == SUCCESS
    assert (world.effects("a"), world.state("a")) == (["do"], "succeeded")
    assert (await world.execute("b", "break")).status == SYSTEM_ERROR
    assert (world.effects("b"), world.state("b")) == ([], None)
    assert (await world.compensate("a")).status == SUCCESS
    assert world.effects("a") == ["do", "undo 1"]
