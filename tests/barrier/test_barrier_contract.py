"""What a barrier promises, by every driver, in SQLite and in PostgreSQL at READ COMMITTED and at SERIALIZABLE."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlite3 import Connection, connect

import pytest

from amends import NOT_NEEDED, Call, Participant, Refused, Retry, Saga, barrier, on
from amends.barrier import AGE_MIN
from amends.payloads import decode
from amends.testing import given
from tests.barrier.kinds import done
from tests.barrier.world import ERROR, SUCCESS, SYSTEM_ERROR, Done, World, together


async def test_i16_a_duplicate_gets_the_first_reply_to_the_byte_and_has_no_effect(world: World) -> None:
    first = await world.execute("a")
    again = await world.execute("a", attempt=2)
    assert (first.status, first.stored, decode(first.output, Done)) == (SUCCESS, True, Done(1))
    assert [each.reference for each in first.related_services] == ["TR-1"]
    assert again.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)
    assert (world.effects("a"), len(world.handled)) == (["do"], 1)


async def test_i16_a_refusal_is_kept_and_nothing_else_of_its_handler(world: World) -> None:
    first = await world.execute("a", "refuse")
    assert (first.status, first.error.code, first.stored) == (ERROR, "NO", True)
    assert decode(first.error.data, dict[str, list[int]]) == {"why": [1, 2]}
    assert await world.execute("a", "refuse", attempt=2) == first
    assert (await world.compensate("a")).status == SUCCESS
    assert await world.execute("a", "refuse", attempt=3) == first
    assert (world.effects("a"), len(world.handled)) == ([], 1)


async def test_a_refusal_that_may_pass_is_kept_in_no_way(world: World) -> None:
    for attempt in (1, 2):
        busy = await world.execute("a", "refuse for now", attempt=attempt)
        assert (busy.status, busy.error.code, busy.stored) == (ERROR, "BUSY", False)
        assert (world.effects("a"), world.state("a"), len(world.handled)) == ([], None, attempt)
    assert (await world.execute("a", attempt=3)).status == SUCCESS
    assert (await world.execute("a", "refuse for now", attempt=1)).status == SUCCESS, "a late one finds the verdict"
    assert (world.effects("a"), len(world.handled)) == (["do"], 3)


async def test_i14_i15_what_was_refused_for_now_and_undone_stays_undone(world: World) -> None:
    await world.execute("a", "refuse for now")
    assert (await world.compensate("a")).status == SUCCESS
    late = await world.execute("a", attempt=2)
    assert (late.status, late.error.code, late.stored) == (ERROR, "UNDONE", True)
    assert (world.effects("a"), len(world.handled)) == ([], 1)


def test_a_rule_that_tries_again_gets_through_a_barrier(tmp_path: Path) -> None:
    database, place, busy = tmp_path / "participant.db", Participant("place"), ["BUSY", "BUSY"]
    once = barrier.sqlite3(lambda: closing(connect(database)))
    once.create_table()

    @place.action(barrier=once)
    def take(request: str, call: Call, tx: Connection) -> str:
        if busy:
            raise Refused(busy.pop(), again=True)
        return request

    saga = Saga("patient", input=str, output=str)
    again = on("BUSY").retry()
    taken = saga.step(take, compensation=NOT_NEEDED, retry=Retry(attempts=3, interval=1), on_error=[again])
    saga.returns(taken.output)
    given(saga, "seat", participants=[place]).completes("seat")
    assert busy == []


def test_a_key_with_another_input_is_shown_by_the_test_kit_as_by_a_server(tmp_path: Path) -> None:
    database, place = tmp_path / "participant.db", Participant("place")
    once = barrier.sqlite3(lambda: closing(connect(database)))
    once.create_table()

    @place.action(barrier=once)
    def take(request: str, call: Call, tx: Connection) -> str:
        return request

    @take.compensation
    def give_back(request: str, done: str, call: Call, tx: Connection) -> None:
        raise AssertionError("there is nothing of this input")

    @place.action
    def spoil(request: str) -> None:
        with closing(connect(database)) as connection, connection:
            connection.execute("UPDATE amends_barrier SET digest = x'00'")
        raise Refused("SPOILT")

    saga = Saga("spoilt", input=str)
    taken = saga.step(take)
    saga.step(spoil, compensation=NOT_NEEDED)
    given(saga, "seat", participants=[place]).stuck(taken)


async def test_what_breaks_leaves_its_key_free(world: World) -> None:
    assert (await world.execute("a", "break")).status == SYSTEM_ERROR
    assert (world.effects("a"), world.state("a")) == ([], None)
    assert (await world.execute("a")).status == SUCCESS
    assert world.effects("a") == ["do"]


async def test_what_succeeded_is_undone_once_with_the_output_that_was_kept(world: World) -> None:
    await world.execute("a")
    replies = [await world.compensate("a") for _ in range(3)]
    assert [reply.status for reply in replies] == [SUCCESS] * 3
    assert len({reply.SerializeToString(deterministic=True) for reply in replies}) == 1
    assert world.effects("a") == ["do", "undo 1"]
    late = await world.execute("a", attempt=2)
    assert (late.status, late.error.code, late.stored) == (ERROR, "UNDONE", True)
    assert world.effects("a") == ["do", "undo 1"]


@pytest.mark.parametrize(("then", "status"), [("break", SYSTEM_ERROR), ("refuse", ERROR), ("refuse for now", ERROR)])
async def test_an_undoing_that_breaks_or_refuses_is_kept_in_no_way(world: World, then: str, status: int) -> None:
    await world.execute("a")
    reply = await world.compensate("a", then)
    assert (reply.status, reply.stored, world.effects("a")) == (status, False, ["do"])
    assert (await world.compensate("a")).status == SUCCESS
    assert world.effects("a") == ["do", "undo 1"]


async def test_i14_i15_a_compensate_that_comes_first_leaves_a_tombstone(world: World) -> None:
    assert (await world.compensate("a")).status == SUCCESS
    for attempt in (1, 2):
        late = await world.execute("a", attempt=attempt)
        assert (late.status, late.error.code, late.stored) == (ERROR, "UNDONE", True)
    assert (await world.compensate("a")).status == SUCCESS
    assert (world.effects("a"), world.handled) == ([], [])


async def test_an_action_that_is_known_to_have_succeeded_is_not_undone_in_silence(world: World) -> None:
    lost = await world.compensate("a", output=Done(7))
    assert (lost.status, lost.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
    assert "its verdict is gone" in lost.error.message
    assert world.state("a") is None
    await world.execute("a")
    assert (await world.compensate("a", output=Done(7))).status == SUCCESS
    assert world.effects("a") == ["do", "undo 1"], "what was kept counts, not what is sent"


async def test_c35_the_same_key_many_times_at_once_has_one_effect(world: World) -> None:
    replies = await together(*(world.execute("a", attempt=n) for n in range(1, 13)))
    assert {reply.SerializeToString(deterministic=True) for reply in replies} == {
        replies[0].SerializeToString(deterministic=True)
    }
    assert (replies[0].status, world.effects("a")) == (SUCCESS, ["do"])


async def test_i13_execute_and_compensate_at_once_leave_nothing(world: World) -> None:
    calls = [call(str(n)) for n in range(4) for call in (world.execute, world.compensate, world.execute)]
    replies = await together(*calls)
    assert {reply.status for reply in replies[1::3]} == {SUCCESS}
    assert {reply.status for reply in replies} <= {SUCCESS, ERROR}
    for n in range(4):
        assert [each.split()[0] for each in world.effects(str(n))] in ([], ["do", "undo"])
        assert world.state(str(n)) == "undone"


async def forget_what_others_left(world: World) -> None:
    """Their verdicts are in the same table, and some of them are old."""
    await done(world.barrier.forget(AGE_MIN))


async def test_verdicts_are_forgotten_when_they_are_old(world: World) -> None:
    await forget_what_others_left(world)
    for key in ("old", "new"):
        await world.execute(key)
    old = f"key = '{world.prefix}old'"
    world.sql(f"UPDATE amends_barrier SET changed_at = changed_at - 172800 WHERE {old}")
    with pytest.raises(ValueError, match="at the least"):
        await done(world.barrier.forget(AGE_MIN - timedelta(seconds=1)))
    assert await done(world.barrier.forget(timedelta(days=3))) == 0
    assert await done(world.barrier.forget(timedelta(days=1.5))) == 1
    assert (world.state("old"), world.state("new")) == (None, "succeeded")
    assert await done(world.barrier.forget(AGE_MIN)) == 0


async def test_what_is_in_doubt_is_never_forgotten(world: World) -> None:
    await forget_what_others_left(world)
    for state in ("intended", "undoing"):
        row = f"('{world.prefix}{state}', '{state}', 0)"
        world.sql(f"INSERT INTO amends_barrier (key, state, changed_at) VALUES {row}")
    assert await done(world.barrier.forget(AGE_MIN)) == 0
    for state in ("intended", "undoing"):
        assert world.state(state) == state
    reply = await world.execute("intended")
    assert (reply.status, reply.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
    assert (await world.compensate("intended")).status == SYSTEM_ERROR


async def test_the_table_is_made_once_and_by_anybody(world: World) -> None:
    await world.execute("a")
    for _ in range(2):
        await done(world.barrier.create_table())
    assert world.state("a") == "succeeded"
