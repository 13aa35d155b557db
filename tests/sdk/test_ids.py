"""Ids that the SDK makes: in order of time, and never twice."""

from __future__ import annotations

import pytest

from amends import ids


def test_later_ids_sort_behind_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for time_ns in (1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000):
        monkeypatch.setattr(ids.time, "time_ns", lambda now=time_ns: now)
        made += sorted({ids.new_saga_id() for _ in range(100)})
    assert made == sorted(made)
    assert len(set(made)) == 300
    assert {len(each) for each in made} == {32}
