"""Ids that the SDK makes: in order of time, never twice, and of the share that is wanted."""

from __future__ import annotations

import pytest

from amends import ids
from amends_server.store.partition import partition_of
from amends_server.store.protocol import SagaKey


def test_later_ids_sort_behind_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for time_ns in (1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000):
        monkeypatch.setattr(ids.time, "time_ns", lambda now=time_ns: now)
        made += sorted({ids.new_saga_id() for _ in range(100)})
    assert made == sorted(made)
    assert len(set(made)) == 300
    assert {len(each) for each in made} == {32}


def test_ids_of_a_share_are_those_that_the_orchestrator_takes_for_its_own() -> None:
    for namespace in ("default", "ünï"):
        for owned in ({0}, {1, 2}, {0, 1, 2}):
            made = [ids.new_saga_id_of(namespace, 3, owned) for _ in range(50)]
            assert {partition_of(SagaKey(namespace, each), 3) for each in made} == owned


def test_a_share_that_no_id_belongs_to_keeps_nobody_from_an_id() -> None:
    assert len(ids.new_saga_id_of("default", 3, {7})) == 32
