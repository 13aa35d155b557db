"""The measurements of growth, small: what they build and what they find is what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from amends_server.bench import pages, sizes, unfinished
from amends_server.bench.filling import opened
from amends_server.bench.pages import PAGE_SIZES, measure_pages
from amends_server.bench.sizes import measure_starts, orchestrators
from amends_server.engine.state import SagaStatus
from amends_server.store.protocol import SagaFilter

DEFAULT = SagaFilter(namespace="default")


async def test_a_file_that_was_filled_is_as_if_its_sagas_had_been_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "REPEATS", 1)
    monkeypatch.setattr(sizes, "ROUNDS", 1)
    async with orchestrators([0, 200], tmp_path) as sized:
        read = await measure_pages(sized[1], PAGE_SIZES[0])
        assert read["pages"] > 300
        assert 0 < read["page_median_ms"] <= read["page_worst_ms"]
        starts = dict(measure_starts(sized, 0.2))
        assert starts[0]["empty_ratio"] == 1
        assert starts[200]["sagas_per_s"] > 0
    async with opened(tmp_path / "200.db") as store:
        page = await store.list_sagas(DEFAULT, None, 9_999)
        copies = [saga for saga in page.sagas if saga.birth.labels]
        assert len(copies) == len({saga.key for saga in copies}) == 328
        assert {saga.head.status for saga in copies} == {SagaStatus.COMPLETED, SagaStatus.COMPENSATED}
        times = [saga.birth.create_time for saga in copies]
        assert times == sorted(times, reverse=True)
        for saga in copies[::50]:
            records = await store.read_records(saga.key, 0, 999)
            assert [record.sequence for record in records] == list(range(1, saga.head.sequence + 1))


async def test_all_sagas_that_a_crash_left_are_recovered(tmp_path: Path) -> None:
    found = await unfinished.measure_recovery(300, tmp_path / "sagas.db")
    assert 0 < found["unfinished"] <= 300
    assert found["first_call_after_listening_s"] < found["first_call_s"] <= found["last_saga_s"] + 0.1
    async with opened(tmp_path / "sagas.db") as store:
        page = await store.list_sagas(DEFAULT, None, 9_999)
        assert [saga.head.status for saga in page.sagas] == [SagaStatus.COMPLETED] * 300


async def test_timers_ring_when_they_are_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "TIMER_S_MIN", 8.0)  # for an orchestrator to be stopped and another one started
    found = await unfinished.measure_timers(100, tmp_path / "sagas.db")
    assert found["early_calls"] == 0
    assert 0 <= found["first_call_late_s"] <= found["median_call_late_s"]
