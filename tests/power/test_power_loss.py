"""The power fails after every operation on the disk: no acknowledged start or event is lost, and none is half there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from amends_server.store import sagas
from amends_server.store.connection import _prepare_writer
from amends_server.store.protocol import NotFound, SagaKey
from amends_server.store.sqlite import SqliteStore
from tests.power.workload import PATH, Workload

ALL_WRITTEN_EVERY = 5
"""Points between two at which everything is found that was written, synced or not: the harmless case."""

FAR = 1 << 30


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload()


def images(workload: Workload, point: int) -> Iterator[dict[str, bytes]]:
    """What the disk may hold if the power fails after so many operations."""
    yield workload.disk.after(point, None)
    yield workload.disk.after(point, Random(point))
    if point % ALL_WRITTEN_EVERY == 0:
        yield workload.disk.after(point, None, everything=True)


def write(image: dict[str, bytes], folder: Path) -> Path:
    for old in folder.iterdir():
        old.unlink()
    for name, data in image.items():
        (folder / Path(name).name).write_bytes(data)
    return folder / PATH.name


def check(workload: Workload, point: int, path: Path) -> list[str]:
    """Open the database as the next process does, with Python's own SQLite, and say what is wrong with it."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        _prepare_writer(path, db, in_doubt=False)
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [wrong for key in workload.written for wrong in check_saga(workload, point, key, db)]
    finally:
        db.close()


def check_saga(workload: Workload, point: int, key: SagaKey, db: sqlite3.Connection) -> Iterator[str]:
    acknowledged = [each for done, each in workload.acknowledged if done <= point and each.key == key]
    stored = sagas.read_records(key, 1, FAR, db)
    try:
        head = sagas.get_saga(key, db).head
    except NotFound:
        head = None
    whole = [[], *(_joined(workload, key, count) for count in range(1, len(workload.written[key]) + 1))]
    if stored not in whole:
        yield f"{key} is half there at {point}: {len(stored)} records"
    if (head.sequence if head else 0) != len(stored):
        yield f"{key} has {len(stored)} records at {point}, and its head is {head}"
    if len(stored) < sum(len(each.records) for each in acknowledged):
        yield f"{key} has lost acknowledged records at {point}: it has {len(stored)}"
    labels = db.execute("select count(*) from label where value = ?", (key.saga_id.removeprefix("saga-"),)).fetchone()
    if labels != (1 if head else 0,):
        yield f"{key} has {labels[0]} labels at {point}"


def _joined(workload: Workload, key: SagaKey, count: int) -> list[object]:
    return [record for each in workload.written[key][:count] for record in each.records]


def test_i20_i32_a_power_failure_at_any_point_loses_nothing_acknowledged(workload: Workload, tmp_path: Path) -> None:
    points = range(len(workload.disk.operations) + 1)
    assert len(points) > 100, "the workload does too little"
    assert len(workload.acknowledged) > 30, "the workload does too little"
    for point in points:
        for image in images(workload, point):
            assert check(workload, point, write(image, tmp_path)) == []


def test_the_disk_forgets_what_the_store_does_not_sync(tmp_path: Path) -> None:
    """Without FULL the same workload loses what was acknowledged: the disk is as bad as it says."""
    careless = Workload(careless=True)
    points = range(0, len(careless.disk.operations) + 1, 5)
    assert any(check(careless, point, write(careless.disk.after(point, None), tmp_path)) for point in points)


async def test_the_store_itself_opens_what_is_left(workload: Workload, tmp_path: Path) -> None:
    for point in range(0, len(workload.disk.operations) + 1, 25):
        store = SqliteStore(write(workload.disk.after(point, Random(point)), tmp_path))
        await store.open()
        try:
            stored = {row.key: row.head.sequence for row in await store.list_unfinished(None, 100)}
            for done, each in workload.acknowledged:
                if done <= point and each is workload.written[each.key][-1] and each.head.end_time is None:
                    assert stored[each.key] == each.head.sequence
        finally:
            await store.close()
