"""The group commit: what goes together, in which order callbacks come, and what a failure takes along."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import structlog

from amends_server import journal as journal_module
from amends_server.journal import Journal
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import AlreadyExists, Append, Conflict, StoreError, Unavailable, Unwritable
from amends_server.store.sqlite import SqliteStore
from tests.store.make import append, define, key, records, start

WAIT_S = 30


class GatedStore(MemoryStore):
    """Lets a test hold commits up, and make them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.batches: list[int] = []
        self.errors: list[Exception] = []

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        self.batches.append(len(appends))
        self.entered.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return await super().commit(appends)


class Told:
    """Collects what the callbacks are told, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, type[StoreError] | None]] = []
        self.changed = asyncio.Event()

    def as_(self, name: str) -> Callable[[StoreError | None], None]:
        def done(error: StoreError | None) -> None:
            self.all.append((name, None if error is None else type(error)))
            self.changed.set()

        return done

    async def until(self, count: int) -> list[tuple[str, type[StoreError] | None]]:
        async with asyncio.timeout(WAIT_S):
            while len(self.all) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.all


@pytest.fixture
async def store() -> GatedStore:
    made = GatedStore()
    await made.open()
    await define(made)
    return made


@pytest.fixture
async def journal(store: GatedStore):  # type: ignore[no-untyped-def]
    made = Journal(store)
    made.start()
    yield made
    store.gate.set()
    await made.close()


async def hold(store: GatedStore, journal: Journal, told: Told) -> None:
    """Start a commit of a saga named "held" and hold it up."""
    store.gate.clear()
    store.entered.clear()
    journal.append(start(key("held")), told.as_("held"))
    async with asyncio.timeout(WAIT_S):
        await store.entered.wait()


async def test_appends_that_gather_during_a_commit_go_together(store: GatedStore, journal: Journal) -> None:
    told = Told()
    await hold(store, journal, told)
    for number in range(50):
        journal.append(start(key(f"s{number}")), told.as_(f"s{number}"))
    assert (told.all, journal.pending) == ([], 51)
    store.gate.set()
    assert await told.until(51) == [("held", None), *((f"s{number}", None) for number in range(50))]
    assert (store.batches, journal.pending) == ([1, 50], 0)


async def test_a_batch_is_bounded(store: GatedStore, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BATCH_APPENDS_MAX", 4)
    told = Told()
    await hold(store, journal, told)
    for number in range(10):
        journal.append(start(key(f"s{number}")), told.as_(f"s{number}"))
    store.gate.set()
    await told.until(11)
    assert store.batches == [1, 4, 4, 2]


async def test_a_batch_is_bounded_in_bytes_and_the_largest_goes_alone(
    store: GatedStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "BATCH_BYTES_MAX", 100)
    told = Told()
    await hold(store, journal, told)
    for number, size in enumerate([60, 40, 1, 99, 101, 30, 30, 30, 30]):
        journal.append(append(key(f"s{number}"), records(1, body=b"x" * size)), told.as_(f"s{number}"))
    store.gate.set()
    assert [name for name, _ in await told.until(10)] == ["held", *(f"s{number}" for number in range(9))]
    assert store.batches == [1, 2, 2, 1, 3, 1]


async def test_i35_of_a_saga_that_was_split_over_batches_nothing_is_written_past_what_failed(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "BATCH_BYTES_MAX", 100)
    told, journal = Told(), Journal(store)
    for first in range(1, 6):
        journal.append(append(key("split"), records(first, body=b"x" * 50)), told.as_(f"split {first}"))
    journal.append(start(key("other")), told.as_("other"))
    store.errors.append(Unavailable("no disk"))
    journal.start()
    outcomes = await told.until(6)
    await journal.close()
    assert outcomes == [*((f"split {first}", Unavailable) for first in range(1, 6)), ("other", None)]
    assert store.batches == [2, 1]
    with pytest.raises(StoreError):
        await store.get_saga(key("split"))


async def test_what_a_callback_appends_is_written(store: GatedStore, journal: Journal) -> None:
    told = Told()
    journal.append(start(key()), lambda _: journal.append(append(key(), records(2)), told.as_("second")))
    assert await told.until(1) == [("second", None)]
    assert (await store.get_saga(key())).head.sequence == 2


async def test_a_callback_that_raises_stops_nobody(store: GatedStore, journal: Journal) -> None:
    def fail(_: StoreError | None) -> None:
        raise RuntimeError("a bug")

    told = Told()
    with structlog.testing.capture_logs() as logs:
        journal.append(start(key("bad")), fail)
        journal.append(start(key("good")), told.as_("good"))
        assert await told.until(1) == [("good", None)]
        journal.append(start(key("later")), told.as_("later"))
        await told.until(2)
    assert [(entry["event"], entry["saga_id"]) for entry in logs] == [("journal_callback_failed", "bad")]


async def test_i34_a_bug_of_the_store_fails_one_batch_and_silences_nobody(store: GatedStore, journal: Journal) -> None:
    told = Told()
    store.errors.append(RuntimeError("a bug"))
    with structlog.testing.capture_logs() as logs:
        journal.append(start(key("bad")), told.as_("bad"))
        assert await told.until(1) == [("bad", Unavailable)]
    assert [entry["event"] for entry in logs] == ["journal_commit_failed"]
    journal.append(start(key("later")), told.as_("later"))
    assert (await told.until(2))[1] == ("later", None)


async def test_a_refusal_is_told_to_its_append_alone(store: GatedStore, journal: Journal) -> None:
    told = Told()
    await store.commit([start(key("taken"))])
    journal.append(append(key("taken"), records(1, body=b"other")), told.as_("taken"))
    journal.append(start(key("free")), told.as_("free"))
    assert await told.until(2) == [("taken", AlreadyExists), ("free", None)]


async def test_i35_unavailable_takes_along_what_builds_on_it_and_others_are_tried(
    store: GatedStore, journal: Journal
) -> None:
    told = Told()
    await hold(store, journal, told)
    store.errors.append(Unavailable("no disk"))
    journal.append(append(key("held"), records(2)), told.as_("held 2"))
    journal.append(start(key("other")), told.as_("other"))
    journal.append(append(key("held"), records(3)), told.as_("held 3"))
    store.gate.set()
    assert await told.until(4) == [
        ("held", Unavailable),
        ("held 2", Unavailable),
        ("held 3", Unavailable),
        ("other", None),
    ]
    assert store.batches == [1, 1]
    journal.append(start(key("held")), told.as_("held again"))
    assert (await told.until(5))[-1] == ("held again", None)


async def test_i35_a_refusal_takes_along_what_is_queued_behind_it(store: GatedStore, journal: Journal) -> None:
    told = Told()
    await store.commit([append(key("held"), records(1, 2, b"stranger's"))])
    await hold(store, journal, told)  # will be refused: there are other records
    journal.append(append(key("held"), records(3)), told.as_("would fit"))
    store.gate.set()
    assert await told.until(2) == [("held", AlreadyExists), ("would fit", AlreadyExists)]
    assert (await store.get_saga(key("held"))).head.sequence == 2


async def test_i34_a_bug_of_the_store_is_told_as_unavailable(store: GatedStore, journal: Journal) -> None:
    told = Told()
    store.errors.append(ZeroDivisionError("a bug"))
    with structlog.testing.capture_logs() as logs:
        journal.append(start(key()), told.as_("first"))
        assert await told.until(1) == [("first", Unavailable)]
    assert [entry["event"] for entry in logs] == ["journal_commit_failed"]
    journal.append(start(key()), told.as_("again"))
    assert (await told.until(2))[-1] == ("again", None)


@pytest.mark.parametrize("bad", [0, 3, 49])
async def test_i42_what_cannot_be_written_is_refused_alone(tmp_path: Path, bad: int) -> None:
    store, told = SqliteStore(tmp_path / "amends.db"), Told()
    await store.open()
    await define(store)
    await store._write(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000))  # stands for a gigabyte
    journal = Journal(store)
    for number in range(50):
        body = b"x" * 60_000 if number == bad else b"body"
        journal.append(append(key(f"s{number}"), records(1, body=body)), told.as_(f"s{number}"))
    journal.append(append(key(f"s{bad}"), records(2)), told.as_("built on it"))
    journal.append(append(key("s7"), records(2), due=1 << 70), told.as_("a number"))
    journal.append(start(key("half \ud800")), told.as_("half a character"))
    journal.start()
    outcomes = dict(await told.until(53))
    await journal.close()
    assert outcomes.pop("built on it") is not None
    assert [name for name, error in outcomes.items() if error is Unwritable] == [
        f"s{bad}", "a number", "half a character",
    ]  # fmt: skip
    assert list(outcomes.values()).count(None) == 49
    assert len(await store.list_unfinished(None, 99)) == 49
    await store.check()
    await store.close()


async def test_closing_writes_what_has_gathered_and_refuses_the_rest(store: GatedStore) -> None:
    told = Told()
    journal = Journal(store)
    journal.append(start(key("before start")), told.as_("before start"))
    journal.start()
    await hold(store, journal, told)
    journal.append(start(key("gathered")), told.as_("gathered"))
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    journal.append(start(key("late")), told.as_("late"))
    store.gate.set()
    await closing
    await journal.close()
    assert sorted(await told.until(4)) == sorted(
        [("before start", None), ("held", None), ("gathered", None), ("late", Unavailable)]
    )
    with pytest.raises(StoreError):
        await store.get_saga(key("late"))


async def test_a_cancelled_close_does_not_stop_the_writer(store: GatedStore) -> None:
    told = Told()
    journal = Journal(store)
    journal.start()
    await hold(store, journal, told)
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    store.gate.set()
    assert await told.until(1) == [("held", None)]
    await journal.close()


async def test_many_sagas_over_sqlite(tmp_path: Path) -> None:
    store, told = SqliteStore(tmp_path / "amends.db"), Told()
    await store.open()
    await define(store)
    journal = Journal(store)
    journal.start()
    for number in range(2_500):
        journal.append(start(key(f"s{number}")), told.as_("start"))
        journal.append(append(key(f"s{number}"), records(2, 2)), told.as_("step"))
    journal.append(append(key("s7"), records(9)), told.as_("wrong"))
    outcomes = await told.until(5_001)
    await journal.close()
    assert outcomes.count(("start", None)) == outcomes.count(("step", None)) == 2_500
    assert outcomes[-1] == ("wrong", Conflict)
    assert {saga.head.sequence for saga in await store.list_unfinished(None, 9_999)} == {3}
    await store.close()
