"""`amends bench`: one row of figures, as it is written and as it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.programs import amends, script


@pytest.mark.timeout(120)
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
    assert row["floor_ratio"] == pytest.approx(row["sagas_per_s"] / row["floor_sagas_per_s"], rel=0.01)
    assert set(row["cpu_s_per_1000"]) == set(row["memory_peak_mb"]) == {"orchestrator", "participant", "client"}
    assert 500 < row["db_bytes_per_saga"] < 20_000
    assert {"date", "commit", "machine", "load"} == set(row["taken"])
    assert "refused" in ended.out


def test_a_wrong_workload_is_refused_with_the_right_ones() -> None:
    ended = amends("bench", "--workload", "fast")
    assert ended.code == 2
    assert "three_steps" in ended.err
