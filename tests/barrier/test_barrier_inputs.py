"""A key that comes with another input than before: it is neither answered with the old reply, nor done, nor undone."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from amends.barrier._statements import FIND_DIGEST
from amends.payloads import encode
from amends.v1 import saga_pb2
from tests.barrier.conftest import each_driver
from tests.barrier.kinds import done
from tests.barrier.world import ERROR, SUCCESS, SYSTEM_ERROR, Do, Status, World, together

OTHER = encode(Do(amount=2))
TAKEN = grpc.StatusCode.ALREADY_EXISTS

OLD_TABLE = """
CREATE TABLE amends_barrier (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('begun', 'intended', 'succeeded', 'refused', 'undoing', 'undone')),
    reply {bytes},
    holder TEXT,
    held_until double precision NOT NULL DEFAULT 0,
    changed_at double precision NOT NULL
)
"""


async def taken(call: Any) -> Any:
    """The text with which a call is turned away because of its input."""
    with pytest.raises(Status) as ended:
        await call
    assert ended.value.code is TAKEN
    return ended.value.details


@each_driver
async def test_i13_i16_what_was_done_is_no_answer_to_another_input_and_not_undone_for_it(world: World) -> None:
    first = await world.execute("a")
    details = await taken(world.execute("a", attempt=2, input=OTHER))
    assert "another input" in details
    assert "under an id that was never used" in details
    for output in (None, {"number": 1}):
        assert "resolve the step" in await taken(world.compensate("a", output=output, input=OTHER))
    assert (world.effects("a"), world.state("a"), len(world.handled)) == (["do"], "succeeded", 1)
    assert await world.execute("a", attempt=3) == first
    assert (await world.compensate("a")).status == SUCCESS
    await taken(world.execute("a", input=OTHER))
    nothing = await world.compensate("a", input=OTHER)
    assert (nothing.status, list(nothing.related_services)) == (SUCCESS, []), "there is nothing under this key"
    assert world.effects("a") == ["do", "undo 1"]


@each_driver
async def test_i14_i15_what_has_no_effect_has_none_for_another_input_either(world: World) -> None:
    refused = await world.execute("refused", "refuse")
    await taken(world.execute("refused", input=OTHER))
    assert (await world.compensate("refused", input=OTHER)).status == SUCCESS
    assert await world.execute("refused", "refuse") == refused
    assert (await world.compensate("tombstone", input=encode("of no use"))).status == SUCCESS, "nobody has to read it"
    await taken(world.execute("tombstone"))
    assert (await world.compensate("tombstone")).status == SUCCESS
    for then in ("break", "refuse for now"):
        await world.execute(then, then)
        assert (await world.execute(then, input=OTHER)).status == SUCCESS, "nothing was kept"
    assert [world.effects(key) for key in ("refused", "tombstone", "break")] == [[], [], ["do"]]


async def test_i13_of_two_inputs_at_once_one_is_done(world: World) -> None:
    calls = [world.execute(str(n), input=each) for n in range(3) for each in (encode(Do()), OTHER)]
    replies = await together(*calls)
    for n in range(3):
        one, other = sorted(replies[2 * n : 2 * n + 2], key=lambda reply: isinstance(reply, Status))
        assert isinstance(one, saga_pb2.Reply)
        assert isinstance(other, Status)
        assert (one.status, other.code, world.effects(str(n))) == (SUCCESS, TAKEN, ["do"])


@each_driver
async def test_what_nobody_knows_the_end_of_is_nothing_for_another_input(world: World) -> None:
    await world.execute("a", "COMMIT, then break")
    await taken(world.execute("a", input=OTHER))
    await taken(world.compensate("a", input=OTHER))
    assert (world.state("a"), world.effects("a")) == ("begun", ["do"])


@each_driver
async def test_what_an_older_version_has_kept_is_answered_and_undone(world: World) -> None:
    """It may run beside this one during an upgrade: it makes rows without a digest, and reads those that have one."""
    first = await world.execute("a")
    world.sql(f"UPDATE amends_barrier SET digest = NULL WHERE key = '{world.prefix}a'")
    assert await world.execute("a", input=OTHER) == first
    unreadable = await world.compensate("a", input=encode("nonsense"))
    assert (unreadable.status, unreadable.error.code, world.state("a")) == (SYSTEM_ERROR, "INVALID_INPUT", "succeeded")
    assert (await world.compensate("a", input=OTHER)).status == SUCCESS
    world.sql(
        "INSERT INTO amends_barrier (key, state, changed_at) "
        f"VALUES ('{world.prefix}b', 'undone', 0) ON CONFLICT (key) DO NOTHING RETURNING key"
    )
    late = await world.execute("b")
    assert (late.status, late.error.code, world.effects("b")) == (ERROR, "UNDONE", [])


@each_driver
async def test_a_table_of_an_older_version_is_said_to_be_one_and_gets_its_column(world: World) -> None:
    world.sql("DROP TABLE amends_barrier")
    world.sql(OLD_TABLE.format(bytes="bytea" if world.postgres else "BLOB"))
    world.sql(f"INSERT INTO amends_barrier VALUES ('{world.prefix}old', 'undone', NULL, NULL, 0, 0)")
    try:
        for call in (world.execute, world.compensate):
            reply = await call("a")
            assert (reply.status, reply.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
            assert "create_table() adds it" in reply.error.message
        assert (world.state("a"), world.handled) == (None, [])
    finally:
        await done(world.barrier.create_table())
    assert ((await world.execute("a")).status, world.state("old")) == (SUCCESS, "undone")
    assert (await world.execute("old")).error.code == "UNDONE"


@each_driver
async def test_a_column_that_somebody_else_adds_in_the_same_moment_is_added_once(world: World) -> None:
    fetch, looked = world.barrier._database.fetch, 0

    async def too_early(tx: Any, statement: Any, **parameters: Any) -> Any:
        nonlocal looked
        rows = await fetch(tx, statement, **parameters)
        if statement is FIND_DIGEST:
            looked += 1
            return rows if looked > 1 else []
        return rows

    world.barrier._database.fetch = too_early
    await done(world.barrier.create_table())
    assert looked == 2
    assert (await world.execute("a")).status == SUCCESS
