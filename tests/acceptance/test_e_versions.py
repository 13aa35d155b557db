"""Orchestrators of two versions on one database, as when they are upgraded one after another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amends import AmendsError, Client, SagaStatus
from amends_server.store.partition import partition_of
from amends_server.store.protocol import SagaKey
from tests.acceptance.harness import THREE, Gate, Process, World
from tests.postgres import Database, schema_of

NEXT = "tests.acceptance.next_version"
WAIT_S = 60

LEASE_S = 3.0
"""The older one waits for it when the newer one has died; no machine that is only busy stands still for so long."""


async def test_e46_orchestrators_of_two_versions_run_side_by_side(tmp_path: Path, database: Database) -> None:
    url = database.new_url()
    old, new = Process(url, lease_s=LEASE_S), Process(url, program=NEXT, lease_s=LEASE_S)
    async with World.opened(tmp_path, old) as world, asyncio.timeout(4 * WAIT_S):
        await world.client.register(THREE)
        gate = Gate()
        world.worker.on("two", gate.after(), saga="begun")
        await world.client.start(THREE.name, None, id="begun")
        await gate.reached()

        await new.start()  # migrates, while the older one goes on
        try:
            async with Client(new.address) as newer:
                await _shared(database, url)
                gate.release()
                sagas = ["begun", *(f"order-{number}" for number in range(8))]  # which both have some of
                for number, saga in enumerate(sagas[1:]):
                    await [world.client, newer][number % 2].start(THREE.name, None, id=saga)
                for saga in sagas:
                    assert (await newer.saga(None, saga).wait()).status is SagaStatus.COMPLETED
                    assert _effects(world, saga) == [1, 1, 1]

                gates = {saga: Gate() for saga in ("plain", "next")}
                ids = {name: await _begin(world, newer, name, gate) for name, gate in gates.items()}
                await new.kill()
                await old.logged("saga_halted", ids["next"], "CorruptRecord")
                for gate in gates.values():
                    gate.release()
                # What it knows it takes over, and what it does not know it leaves alone.
                assert (await world.settled(ids["plain"])).status is SagaStatus.COMPLETED
                with pytest.raises(AmendsError, match="more than this version knows of"):
                    await world.client.get(ids["next"])
                assert world.ledger.names(ids["next"]) == ["one", "two"]

            with pytest.raises(RuntimeError, match=r"was used by a newer version of amends"):
                await Process(url).start()

            await new.start()
            await old.stop()
            async with Client(new.address) as newer:
                assert (await newer.saga(None, ids["next"]).wait()).status is SagaStatus.COMPLETED
                assert [_effects(world, saga) for saga in ids.values()] == [[1, 1, 1]] * 2
        finally:
            await new.stop()


async def _begin(world: World, newer: Client, label: str, gate: Gate) -> str:
    """Start a saga that the newer orchestrator runs, and return its id once its second step is under way."""
    of_newer = (f"{label}-{n}" for n in range(999) if partition_of(SagaKey("default", f"{label}-{n}"), 64) >= 32)
    saga_id = next(of_newer)
    world.worker.on("two", gate.after(), saga=saga_id)
    await newer.start(THREE.name, None, id=saga_id, labels={label: "yes"})
    await gate.reached()
    return saga_id


def _effects(world: World, saga: str) -> list[int]:
    return [world.ledger.effects_ever(saga, step) for step in ("one", "two", "three")]


async def _shared(database: Database, url: str) -> None:
    """Wait until each has a half; the one that came later then has the second."""
    even = "select count(*) = 2 from (select 1 from partition group by owner having count(*) = 32) as shares"
    await asyncio.to_thread(database.wait_for, even, schema_of(url))
