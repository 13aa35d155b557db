"""kill -9 of a real process at each place of a call: the effect and its verdict stand or fall together."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.barrier.kinds import KINDS
from tests.barrier.world import ERROR, SUCCESS, World

PLACES_MAX = 12
CASES = [("sqlite3", ""), ("psycopg", "read-committed"), ("asyncpg", "serializable")]


@pytest.mark.parametrize("called", ["execute", "compensate"])
@pytest.mark.parametrize(("name", "level"), CASES, ids=lambda value: value or "sqlite")
async def test_i32_a_call_that_is_killed_at_any_place_is_whole_or_not_there(
    name: str, level: str, called: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    place = request.getfixturevalue("postgres_urls")[level] if level else str(tmp_path / "participant.db")
    kind = next(kind for kind in KINDS if kind.name == name and kind.postgres == bool(level))
    labels: list[str] = []
    for step in range(PLACES_MAX):
        async with AsyncExitStack() as stack:
            world = World(kind.make(place, stack), kind.write, place, prefix=f"{name}{level}{called}{step}")
            await world.prepare()
            if called == "compensate":
                await world.execute("a")
            label = killed(name, place, world.prefix, called, step)
            if label is None:
                break
            labels.append(label)
            committed = label == "after commit"
            before = ["do"] if called == "compensate" else []
            after = ["do", "undo 1"] if called == "compensate" else ["do"]
            assert world.effects("a") == (after if committed else before), label
            again = await (world.execute("a") if called == "execute" else world.compensate("a"))
            assert (again.status, world.effects("a")) == (SUCCESS, after), label
            if called == "compensate":
                assert (await world.execute("a")).status == ERROR
    assert labels[0] == "before begin"
    assert labels[-2:] == ["before commit", "after commit"]
    assert "before effect" in labels, "killed between the effect and its commit, and before it"
    assert "before release" in labels


def killed(*arguments: object) -> str | None:
    """Start a call in a process of its own, and kill it where it says that it stands. None: it came to its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.barrier.crashing", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    process.kill()
    process.communicate()
    word, _, label = line.partition(" ")
    assert word in ("there", "end"), line
    return label or None
