"""The databases that barriers are tested in: SQLite files, and PostgreSQL at two levels of isolation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.barrier.kinds import KINDS, Kind
from tests.barrier.world import World
from tests.postgres import Database

LEVELS = {"read-committed": "read committed", "serializable": "serializable"}
CASES = [(kind, level) for kind in KINDS for level in (LEVELS if kind.postgres else ("",))]


def name_of(case: tuple[Kind, str]) -> str:
    kind, level = case
    return f"{kind.name}-{level or 'sqlite'}"


# For what depends on the driver, and neither on the level of isolation nor on who has the connection.
each_driver = pytest.mark.parametrize(
    "world",
    [case for case in CASES if case[1] != "serializable" and "shared" not in case[0].name],
    ids=name_of,
    indirect=True,
)


@pytest.fixture(scope="session")
def postgres_urls(database: Database) -> dict[str, str]:
    """Of each level of isolation, the URL of a database that has it."""
    for name, level in LEVELS.items():
        database.sql(f'CREATE DATABASE "{name}"')
        database.sql(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{level}'")
    return {name: database.url(name) for name in LEVELS}


@pytest.fixture(params=CASES, ids=name_of)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    kind, level = request.param
    assert isinstance(kind, Kind)
    place = request.getfixturevalue("postgres_urls")[level] if kind.postgres else str(tmp_path / "participant.db")
    async with AsyncExitStack() as stack:
        world = World(kind.make(place, stack), kind.write, place)
        await world.prepare()
        yield world
