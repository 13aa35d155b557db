"""`amends bench`: one row of figures, as it is written and as it is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from amends_server.bench.processes import running
from amends_server.bench.roundtrips import Messages
from amends_server.bench.shared import _measure_costs
from amends_server.store.postgres.store import PostgresStore
from tests.cli.programs import amends, script
from tests.postgres import Database
from tests.store.make import append, define, key, records, start
from tests.store.proxy import Proxy

ROWS = [(b"Z", 1), (b"D", 300), (b"C", 0)]


def test_a_row_has_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    ended = script(
        *("bench", "--workload", "refused", "--link", "session", "--concurrency", "8"),
        *("--seconds", "0.5", "--json", str(file)),
    )
    assert ended.code == 0, ended.err
    (row,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert (row["workload"], row["link"], row["concurrency"]) == ("refused", "session", 8)
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["sagas_per_s"] > 0
    assert row["floor_ratio"] == pytest.approx(row["sagas_per_s"] / row["floor_sagas_per_s"], abs=0.01)
    assert set(row["cpu_s_per_1000"]) == set(row["memory_peak_mb"]) == {"orchestrator", "participant", "client"}
    assert 500 < row["db_bytes_per_saga"] < 20_000
    assert {"date", "commit", "machine", "load"} == set(row["taken"])
    assert "refused" in ended.out


def test_a_wrong_workload_is_refused_with_the_right_ones() -> None:
    ended = amends("bench", "--workload", "fast")
    assert ended.code == 2
    assert "three_steps" in ended.err


async def test_a_saga_of_three_steps_costs_a_database_twelve_rows(database: Database) -> None:
    """docs/scale.md reckons with it."""
    with running("amends_server.bench.nodes", "participant", "session") as served:
        assert os.getpgid(served.pid) == served.pid, "Ctrl-C at a terminal is for the bench alone"
        sagas, values = await _measure_costs(database.new_url(), served.address, 8, 0.3)
    assert sagas > 0
    assert (values["rows_inserted_per_saga"], values["rows_updated_per_saga"]) == (9, 3)
    assert 1_000 < values["wal_bytes_per_saga"] < 1_000_000
    assert values["round_trips_per_saga"] > 0


@pytest.mark.parametrize("size", [1, 2, 5, 1_000])
def test_the_ends_of_round_trips_are_found_wherever_what_is_received_is_cut(size: int) -> None:
    stream = b"".join(kind + (4 + bytes_).to_bytes(4) + b"Z" * bytes_ for kind, bytes_ in [*ROWS, (b"Z", 1), *ROWS])
    messages = Messages()
    parts = (stream[place : place + size] for place in range(0, len(stream), size))
    assert sum(messages.count(part, b"Z"[0]) for part in parts) == 3


async def test_a_saga_alone_costs_seventeen_round_trips(database: Database) -> None:
    """docs/scale.md reckons with it: five for its start, four for each of its three other appends."""
    async with Proxy.before(database.new_url()) as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        await define(store)
        assert await store.commit([start(key("first"))]) == [None]  # which prepares all statements
        proxy.count()
        assert await store.commit([start(key())]) == [None]
        of_start = proxy.sent
        proxy.count()
        assert await store.commit([append(key(), records(2))]) == [None]
        assert (of_start, proxy.sent) == (5, 4)
        await store.close()


def test_what_cannot_be_measured_or_kept_is_a_sentence(tmp_path: Path) -> None:
    kept = amends("bench", "--json", str(tmp_path / "gone" / "rows.jsonl"))
    assert (kept.code, kept.err) == (
        2,
        f"amends: --json: {tmp_path}/gone/rows.jsonl cannot be written (No such file or directory): "
        "choose another file.\n",
    )
    gone = amends("bench", "--shared", "postgresql://127.0.0.1:1/gone")
    assert (gone.code, "127.0.0.1:1/gone cannot be reached" in gone.err) == (1, True)


def test_what_is_shared_goes_with_no_workload() -> None:
    ended = amends("bench", "--shared", "postgresql://nowhere/none", "--workload", "refused")
    assert ended.code == 2
    assert "--shared" in ended.err
