"""A store that was restored from a backup: participants know more than it does (I43), and epochs only grow (I25)."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from amends import EventKind, NotFound, SagaStatus
from amends_server.app import StartError, begin_incarnation
from amends_server.config import load_settings
from tests.acceptance.harness import SQLITE_ONLY, THREE, Gate, InProcess, Process, World, definition, in_progress
from tests.postgres import Database, schema_of


class Store(Protocol):
    url: str

    def back_up(self) -> None:
        """Make a copy while an orchestrator runs."""

    def restore(self) -> None:
        """Put it where the store is."""


class File:
    def __init__(self, folder: Path) -> None:
        self._path, self._copy = folder / "amends.db", folder / "backup.db"
        self.url = f"sqlite:///{self._path}"

    def back_up(self) -> None:
        db = sqlite3.connect(self._path)
        db.execute("vacuum into ?", (str(self._copy),))
        db.close()

    def restore(self) -> None:
        for log in ("-wal", "-shm"):
            self._path.with_name(self._path.name + log).unlink(missing_ok=True)
        self._path.write_bytes(self._copy.read_bytes())


class Schema:
    def __init__(self, folder: Path, database: Database) -> None:
        self._database, self._dump = database, folder / "dump.sql"
        self.url = database.new_url()
        self._schema = schema_of(self.url)

    def back_up(self) -> None:
        self._run("pg_dump", "-n", self._schema, "-f", self._dump)

    def restore(self) -> None:
        self._database.sql(f"drop schema {self._schema} cascade")
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", self._dump)

    def _run(self, program: str, *arguments: str | Path) -> None:
        where = ("-h", self._database.folder, "-U", "amends", "-d", "postgres")
        command = [self._database.programs / program, *where, *arguments]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return File(tmp_path)
    return Schema(tmp_path, request.getfixturevalue("database"))


async def test_i43_after_a_restore_nothing_is_doubled_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    server = Process(store.url)
    async with World.opened(tmp_path, server) as world:
        gates = {"forward": Gate(), "back": Gate()}
        await world.client.register(THREE)
        for saga, gate in gates.items():
            world.worker.on("two", gate.after(), saga=saga)
            await world.client.start(THREE.name, None, id=saga)
            await gate.reached()
        await asyncio.to_thread(store.back_up)

        for gate in gates.values():
            gate.release()
        await world.client.start(THREE.name, None, id="later")
        for saga in ("forward", "back", "later"):
            assert (await world.settled(saga)).status is SagaStatus.COMPLETED
        before = max(call.epoch for call in world.ledger.calls())

        await server.kill()
        await asyncio.to_thread(store.restore)
        done = await asyncio.to_thread(_restored, store.url)
        assert "new incarnation" in done.stdout, done.stderr
        world.worker.on("two", in_progress(), saga="back")
        await server.start()

        assert (await world.settled("forward")).status is SagaStatus.COMPLETED
        await world.until("back", EventKind.SAGA_RESTORED)
        await world.client.saga(None, "back").cancel(reason="not wanted any more")
        back = await world.settled("back")
        assert back.status is SagaStatus.COMPENSATED
        assert "undo three" in world.ledger.names("back")  # which its journal says was never dispatched
        assert world.ledger.effects("back") == []

        with pytest.raises(NotFound):
            await world.client.get("later")
        await world.client.start(THREE.name, None, id="later")
        assert (await world.settled("later")).status is SagaStatus.COMPLETED
        for saga in ("forward", "later"):
            assert [world.ledger.effects_ever(saga, step) for step in ("one", "two", "three")] == [1, 1, 1]
        since = [call for saga in gates for call in world.ledger.calls(saga) if call.epoch > before]
        assert {call.saga for call in since} == set(gates)
        assert min(call.epoch for call in since) > before + 1_000_000, "as many could have been lost"


async def test_i43_a_store_that_nobody_has_used_was_not_restored(tmp_path: Path, database: Database) -> None:
    """The name of another store than the one that was restored would leave that one without its new incarnation."""
    file = tmp_path / "amends.db"
    schema = database.new_url()
    for url in (f"sqlite:///{file}", schema, "memory:"):
        with pytest.raises(StartError, match="There is nothing in the store"):
            await begin_incarnation(load_settings(store=url))
    assert not file.exists()
    tables = "select count(*) from information_schema.tables where table_schema = current_schema()"
    assert database.sql(tables, schema_of(schema)) == "0"


@SQLITE_ONLY
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


def _restored(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "amends_server.cli", "restored", "--store", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)
