"""The connection breaks while the barrier commits: whatever became of it, the call that comes again finds out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.barrier.kinds import KINDS, Kind
from tests.barrier.world import SUCCESS, SYSTEM_ERROR, World
from tests.postgres import Database
from tests.store.proxy import Proxy

WAIT_S = 30
POSTGRES_KINDS = [kind for kind in KINDS if kind.postgres]


@pytest.mark.parametrize("arrives", ["never", "at once", "late"])
@pytest.mark.parametrize("kind", POSTGRES_KINDS, ids=lambda kind: kind.name)
async def test_i13_i16_a_connection_that_breaks_during_commit(
    kind: Kind, arrives: str, postgres_urls: dict[str, str], database: Database
) -> None:
    """With `late` the server gets the COMMIT when the same call has come again, and waits for the first one's end."""
    url = postgres_urls["read-committed"]
    async with Proxy.before(url) as proxy, AsyncExitStack() as stack:
        world = World(kind.make(proxy.url.partition("?")[0], stack), kind.write, url)
        await World(kind.make(url, stack), kind.write, url).prepare()
        for call, before, after in ((world.execute, [], ["do"]), (world.compensate, ["do"], ["do", "undo"])):
            late = asyncio.Event() if arrives == "late" else None
            proxy.break_at_commit(pass_on=arrives != "never", late=late)
            broken = await call("a")
            assert proxy.broke
            assert (broken.status, broken.stored) == (SYSTEM_ERROR, False)
            if arrives == "never":
                assert world.effects("a") == before
            again = asyncio.ensure_future(call("a"))
            if late is not None:
                await database.locked()
                assert world.effects("a") == before
                late.set()
            reply = await asyncio.wait_for(again, WAIT_S)
            assert (reply.status, reply.stored, [each.split()[0] for each in world.effects("a")]) == (
                SUCCESS,
                True,
                after,
            )
            assert await call("a") == reply
        assert len(world.handled) == (4 if arrives == "never" else 2), "what was committed was not done again"
