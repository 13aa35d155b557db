"""A backup that is restored: what was done since then is asked for again, and is not done twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from amends import SagaStatus
from tests.acceptance.harness import SQLITE_ONLY, Gate, World, definition
from tests.acceptance.harness_orchestrator import InProcess

pytestmark = SQLITE_ONLY


async def test_i43_what_was_done_since_the_backup_is_asked_for_with_the_same_keys(tmp_path: Path) -> None:
    file, backup = tmp_path / "amends.db", tmp_path / "backup.db"
    async with World.opened(tmp_path, server := InProcess(file)) as world:
        gate = Gate()
        world.worker.on("two", gate.before())
        saga = await world.start(definition("three", "one", "two", "three"), {"order": 7})
        await gate.reached()
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        gate.release()
        assert (await world.settled(saga)).status is SagaStatus.COMPLETED
        late = await world.client.start("three", {"order": 8}, id="late")
        assert (await world.settled(late)).status is SagaStatus.COMPLETED
        await server.stop()
        for name in ("amends.db-wal", "amends.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        backup.replace(file)
        await server.start()
        assert (await world.settled("s")).status is SagaStatus.COMPLETED
        again = await world.client.start("three", {"order": 8}, id="late")  # its client does not know of the restore
        assert (await world.settled(again)).status is SagaStatus.COMPLETED
        for saga_id in ("s", "late"):
            calls = world.ledger.calls(saga_id)
            assert len(calls) > len(world.ledger.keys(saga_id)), "something was asked for again"
            assert world.ledger.effects(saga_id) == ["one", "two", "three"], "and each was done once"
            for key in world.ledger.keys(saga_id):
                assert len({call.execute_request.input.json for call in calls if call.key == key}) == 1
