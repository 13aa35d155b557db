"""Leases on partitions: shared evenly, renewed beside a busy event loop, handed over, and stolen when they end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from itertools import cycle

import asyncpg
import pytest

from amends_server.store.partition import partition_of
from amends_server.store.postgres import leases as leases_module
from amends_server.store.postgres.leases import Leases
from amends_server.store.postgres.statements import Db, fetch
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import SagaKey, Stale
from tests.postgres import Database, schema_of
from tests.store.make import append, define, key, records, start, written
from tests.store.survival import run, stop

LEASE_S = 2.0
"""Long enough that none is over because the machine stood still for a moment."""

WAIT_S = 60
DAY_S = 86_400.0


class Replica:
    """An orchestrator as far as leases go: what it owns, and all that it was told to have gained."""

    def __init__(self, url: str, told: asyncio.Event | None = None) -> None:
        self.leases = Leases(url, 64, LEASE_S)
        self.gained: list[set[int]] = []
        self._told = told or asyncio.Event()
        self.busy: list[SagaKey] = []

    async def start(self) -> None:
        await self.leases.start("127.0.0.1:1", self._changed, lambda: self.busy)

    def _changed(self, gained: Collection[int] | None) -> None:
        assert gained is not None
        self.gained.append(set(gained))
        self._told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._told.clear()
                await self._told.wait()

    @property
    def owned(self) -> set[int]:
        return set(self.leases.partitions)

    @property
    def renewal_time(self) -> float:
        return time.monotonic() - self.leases.renewals.age_s

    def epoch(self, partition: int) -> int:
        saga = next(k for n in range(10_000) if partition_of(k := key(f"s{n}"), 64) == partition)
        return self.leases.epoch_of(saga)


@pytest.fixture
async def url(database: Database) -> str:
    url = database.new_url()
    store = PostgresStore(url)
    await store.open()
    await define(store)
    await store.close()
    return url


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[list[Replica]]:
    told = asyncio.Event()  # each waits for what any of them is told
    made = [Replica(url, told) for _ in range(3)]
    yield made
    for replica in made:
        await replica.leases.stop()


async def test_one_replica_owns_everything_at_once(replicas: list[Replica]) -> None:
    await replicas[0].start()
    await replicas[0].until(lambda: len(replicas[0].owned) == 64)
    assert replicas[0].gained == [set(range(64))]
    assert replicas[0].epoch(5) == 1


async def test_replicas_share_evenly_and_nothing_is_owned_twice(replicas: list[Replica]) -> None:
    await asyncio.gather(*(replica.start() for replica in replicas))
    await replicas[0].until(lambda: sorted(len(one.owned) for one in replicas) == [21, 21, 22])
    everything = [partition for replica in replicas for partition in replica.owned]
    assert sorted(everything) == list(range(64))


async def test_who_joins_gets_what_is_handed_over_once_its_calls_have_ended(
    replicas: list[Replica], database: Database, url: str
) -> None:
    first, second, _ = replicas
    sagas = first.busy = [key(f"s{number}") for number in range(500)]
    await first.start()
    await second.start()
    await first.until(lambda: len(first.owned) == 32)
    await first.until(lambda: any(first.leases.leaves(saga) for saga in sagas))
    leaving = [saga for saga in sagas if first.leases.leaves(saga)]
    await asyncio.sleep(1.2 * LEASE_S)  # nobody takes it meanwhile
    assert {first.leases.epoch_of(saga) for saga in leaving} == {1}
    assert second.owned == set()
    first.busy = []
    await second.until(lambda: len(second.owned) == 32)
    assert {first.leases.epoch_of(saga) for saga in leaving} == {0}
    assert {second.leases.epoch_of(saga) for saga in leaving} == {2}
    assert not any(first.leases.leaves(saga) for saga in sagas)


async def test_what_was_about_to_be_handed_over_is_gained_anew_when_it_stays(
    replicas: list[Replica], database: Database, url: str
) -> None:
    """What was held back meanwhile has to be looked for."""
    first, second, _ = replicas
    first.busy = [key(f"s{number}") for number in range(500)]
    await first.start()
    await first.until(lambda: first.gained == [set(range(64))])
    await second.start()
    await first.until(lambda: len(first.owned) == 32)
    await second.leases.stop()  # it is gone again, before it got anything
    await first.until(lambda: len(first.owned) == 64)
    assert first.gained[-1] == set(range(32, 64))
    assert {first.epoch(partition) for partition in (5, 60)} == {1}
    assert not any(first.leases.leaves(key(f"s{number}")) for number in range(500))


async def test_a_partition_is_handed_over_in_time_though_it_changes_which_others_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where another replica comes and goes."""
    monkeypatch.setattr(leases_module, "HAND_OVER_S", 0.5)
    leases = Leases("postgresql:///not-asked", 64, LEASE_S)
    leases._busy = lambda: [key(f"s{number}") for number in range(500)]  # in all partitions
    async with asyncio.timeout(WAIT_S):
        for other in cycle(range(2, 64)):
            leases._take((), {1: 1, other: 1})
            await asyncio.sleep(0.1)
            if 1 in leases._left:
                break
    await leases.stop()


async def test_a_replica_that_stops_leaves_at_once(replicas: list[Replica], database: Database, url: str) -> None:
    """Nobody has to wait for the end of its leases."""
    first, second, _ = replicas
    await first.start()
    await second.start()
    await second.until(lambda: len(second.owned) == 32)
    await first.leases.stop()
    assert first.owned == set()
    schema, of_nobody = schema_of(url), "select count(*) from partition where owner not in (select id from replica)"
    assert database.sql("select count(*) from replica", schema) == "1"
    assert database.sql(of_nobody, schema) == "0"
    await second.until(lambda: len(second.owned) == 64)


async def test_who_retires_hands_each_partition_over_once_its_calls_have_ended_and_is_found_until_then(
    replicas: list[Replica], database: Database, url: str
) -> None:
    first, second, _ = replicas
    await first.start()
    await second.start()
    await second.until(lambda: len(second.owned) == 32)
    mine = [saga for number in range(500) if first.leases.epoch_of(saga := key(f"s{number}"))]
    at_work, at_rest = mine[0], next(saga for saga in mine if not same_partition(saga, mine[0]))
    first.busy, epoch = [at_work], first.leases.epoch_of(at_work)
    first.leases.retire()
    await second.until(lambda: len(second.owned) == 63)
    assert second.leases.epoch_of(at_rest) > 0
    assert first.leases.epoch_of(at_rest) == 0
    assert (first.leases.epoch_of(at_work), first.leases.leaves(at_work)) == (epoch, True)
    assert second.leases.address_of(at_work) == first.leases.address != ""
    counted = database.sql("select id from replica where expires > clock_timestamp()", schema_of(url))
    assert first.leases.id not in counted, "the others give it no share any more"
    first.busy = []
    await second.until(lambda: len(second.owned) == 64)
    assert second.leases.epoch_of(at_work) == epoch + 1
    assert first.leases.epoch_of(at_work) == 0


async def test_who_retires_waits_for_calls_however_long_they_take(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long it may take says whoever retires; a joining is over after a while."""
    monkeypatch.setattr(leases_module, "HAND_OVER_S", 0.0)
    first, second, _ = replicas
    first.busy = [key(f"s{number}") for number in range(500)]
    await first.start()
    await second.start()
    await second.until(lambda: len(second.owned) == 32)
    mine = [saga for saga in first.busy if first.leases.epoch_of(saga)]
    first.leases.retire()
    await first.until(lambda: not first.owned)
    await asyncio.sleep(3 * leases_module.REST_S)
    assert all(first.leases.leaves(saga) for saga in mine)
    first.busy = []
    await second.until(lambda: len(second.owned) == 64)


async def test_i24_who_retires_lets_go_of_what_is_stolen_from_it_while_its_calls_are_in_flight(
    replicas: list[Replica], database: Database, url: str
) -> None:
    """Though it has nothing else any more, so that nothing of what it owns changes."""
    first, _, _ = replicas
    saga = key()
    first.busy = [saga]
    await first.start()
    await first.until(lambda: len(first.owned) == 64)
    first.leases.retire()
    await first.until(
        lambda: first.leases.leaves(saga) and first.leases._left >= set(range(64)) - {partition_of(saga, 64)}
    )
    database.sql("update partition set owner = 'thief', epoch = epoch + 1 where owner is not null", schema_of(url))
    await first.until(lambda: first.leases.epoch_of(saga) == 0)
    assert not first.leases.leaves(saga)


def same_partition(one: SagaKey, other: SagaKey) -> bool:
    return partition_of(one, 64) == partition_of(other, 64)


async def test_i28_the_leases_of_a_dead_replica_are_stolen_in_a_later_epoch(
    url: str, replicas: list[Replica], database: Database
) -> None:
    first, second, _ = replicas
    await first.start()
    epochs = {partition: first.epoch(partition) for partition in (3, 60)}
    first.leases._stop.set()  # it dies: nothing is given back
    first.leases._give_up = _die  # type: ignore[method-assign]
    await second.start()
    await second.until(lambda: len(second.owned) == 64)
    assert all(second.epoch(partition) == epoch + 1 for partition, epoch in epochs.items())
    assert first.owned == set()  # it cannot be sure any more


async def test_i24_whoever_was_robbed_writes_nothing(url: str, replicas: list[Replica], database: Database) -> None:
    first = replicas[0]
    await first.start()
    store = PostgresStore(url)
    await store.open()
    epoch = first.leases.epoch_of(key())
    await written(store, start(key(), epoch=epoch))
    database.sql("update partition set owner = 'somebody', epoch = epoch + 1, expires = expires + interval '1 day'",
                 schema_of(url))  # fmt: skip
    assert [type(refused) for refused in await store.commit([append(key(), records(2), epoch=epoch)])] == [Stale]
    await first.until(lambda: first.owned == set())
    assert first.leases.epoch_of(key()) == 0
    await store.close()


async def test_i25_a_replica_that_comes_back_owns_in_a_later_epoch(url: str) -> None:
    saga = SagaKey("default", "x")
    for epoch in (1, 2, 3):
        replica = Replica(url)
        await replica.start()
        assert replica.leases.epoch_of(saga) == epoch
        await replica.leases.stop()


async def test_a_busy_event_loop_starves_no_lease(url: str, replicas: list[Replica]) -> None:
    first, second, _ = replicas
    await first.start()
    other = Leases(url, 64, LEASE_S)
    end = time.monotonic() + 1.5 * LEASE_S
    while time.monotonic() < end:  # never awaits
        sum(range(1_000))
    assert len(first.owned) == 64
    assert first.epoch(1) == 1
    await other.stop()
    await second.start()
    assert second.owned == set()  # there is nothing to steal


async def test_i28_what_was_not_renewed_in_time_is_gained_again_in_the_same_epoch(
    url: str, replicas: list[Replica]
) -> None:
    """Sagas were let go of meanwhile, and somebody has to look after them."""
    first = replicas[0]
    await first.start()
    await first.until(lambda: len(first.gained) == 1)
    holding = await asyncpg.connect(url)
    async with holding.transaction():
        await holding.fetch("select id from partition for update")
        async with asyncio.timeout(WAIT_S):
            while first.owned:  # noqa: ASYNC110 - that a lease is over nobody tells
                await asyncio.sleep(0.05)
            while not first.leases.renewals.failed:  # noqa: ASYNC110 - nor that a renewal has failed
                await asyncio.sleep(0.05)
        lost = first.renewal_time
        assert first.leases.renewals.age_s >= LEASE_S
    await holding.close()
    await first.until(lambda: len(first.gained) == 2)
    assert first.gained[1] == set(range(64))
    assert first.epoch(5) == 1
    assert first.renewal_time > lost + 0.1, "that of before"


async def test_i28_a_transaction_of_a_dead_replica_that_hangs_keeps_others_from_its_partitions_only(
    url: str, replicas: list[Replica], database: Database
) -> None:
    first = replicas[0]
    await first.start()
    await first.until(lambda: len(first.owned) == 64)
    holding = await asyncpg.connect(url)
    async with holding.transaction():
        await holding.fetch("select id from partition where id = 7 for key share")  # lets it change its owner
        database.sql("update partition set owner = 'dead', epoch = 2, expires = clock_timestamp() where id < 10",
                     schema_of(url))  # fmt: skip
        await first.until(lambda: len(first.owned) == 63)
        begun = time.monotonic()
        while time.monotonic() < begun + 1.5 * LEASE_S:
            assert len(first.owned) == 63
            await asyncio.sleep(0.05)
    await holding.close()
    await first.until(lambda: len(first.owned) == 64)
    assert {first.epoch(partition) for partition in range(10)} == {3}


async def test_i28_what_a_late_claim_brings_beyond_the_share_is_given_back(
    url: str, replicas: list[Replica], database: Database
) -> None:
    """A claim that waited for a lock may go through when its replica has its share already."""
    first, schema = replicas[0], schema_of(url)
    database.sql("insert into replica values ('~', '', clock_timestamp() + interval '1 day')", schema)
    database.sql(
        "update partition set owner = '~', expires = clock_timestamp() + interval '1 day' where id > 31", schema
    )
    await first.start()
    await first.until(lambda: len(first.owned) == 32)
    database.sql(
        "update partition set owner = (select owner from partition where id = 0), epoch = 9 where id = 63", schema
    )
    await asyncio.to_thread(database.wait_for, "select owner is null from partition where id = 63", schema)
    assert first.owned == set(range(32))


async def test_i28_what_is_let_go_of_while_other_partitions_are_released_is_released_too(
    url: str, replicas: list[Replica], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop was busy, and says twice in a row what it has let go of."""
    first, schema = replicas[0], schema_of(url)
    releasing, go_on = threading.Event(), threading.Event()

    async def slow(db: Db, *parts: str, **values: object) -> Sequence[asyncpg.Record]:
        rows = await fetch(db, *parts, **values)
        if parts == ("release",) and not releasing.is_set():
            releasing.set()
            await asyncio.to_thread(go_on.wait)
        return rows

    monkeypatch.setattr(leases_module, "fetch", slow)
    await first.start()
    await first.until(lambda: len(first.owned) == 64)
    some = "insert into replica values ('{}', '', clock_timestamp() + interval '1 day')"
    database.sql(some.format("~1"), schema)
    await asyncio.to_thread(releasing.wait, WAIT_S)
    first.leases._keep_share(dict.fromkeys(range(32), 1), 16, time.monotonic() + LEASE_S)  # a third one has come
    await first.until(lambda: len(first.owned) == 16)
    database.sql(some.format("~2") + "; " + some.format("~3"), schema)
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.to_thread(database.wait_for, "select count(*) = 48 from partition where owner is null", schema)


@pytest.mark.parametrize("bug", [asyncpg.InternalClientError("it got what it did not expect"), KeyError("a bug")])
async def test_an_error_that_nobody_expects_ends_no_ownership(
    replicas: list[Replica], bug: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, turn = replicas[0], Leases._turn
    turns = 0

    async def fail_once(self: Leases, db: asyncpg.Connection[asyncpg.Record]) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise bug
        await turn(self, db)

    monkeypatch.setattr(Leases, "_turn", fail_once)
    await first.start()
    await first.until(lambda: len(first.owned) == 64)
    assert first.leases.renewals.failed >= 1


def test_i24_who_could_not_renew_a_lease_in_time_owns_nothing_whatever_it_was_told() -> None:
    leases, everything = Leases("", 64, LEASE_S), dict.fromkeys(range(64), 1)
    leases._keep_share(everything, 64, time.monotonic() + WAIT_S)
    assert leases.epoch_of(key()) == 1
    leases._keep_share(everything, 64, time.monotonic())
    assert leases.epoch_of(key()) == 0
    assert list(leases.partitions) == []


async def test_i24_a_lease_begins_when_it_is_asked_for_and_not_when_the_answer_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database counts from a moment in between: who counts from a later one owns what another may have."""
    asked: list[float] = []

    async def slow(db: Db, *parts: str, **values: object) -> Sequence[object]:
        asked.append(time.monotonic())
        await asyncio.sleep(0.01)
        return [{"id": 7, "epoch": 1}] if parts == ("renew",) else []

    monkeypatch.setattr(leases_module, "fetch", slow)
    leases = Leases("", 64, LEASE_S)
    await leases._turn(None)  # type: ignore[arg-type]
    assert leases._held.until <= asked[0] + LEASE_S


async def test_i26_what_was_to_be_handed_over_and_stays_is_let_go_of_before_it_is_gained() -> None:
    """Its sagas are on hold: only those that are not in memory are looked for."""
    told: list[tuple[set[int], int]] = []
    leases, saga = Leases("", 64, LEASE_S), key()
    number = partition_of(saga, 64)
    leases._changed = lambda gained: told.append((set(gained or ()), leases.epoch_of(saga)))
    leases._keep_share({number: 1}, 64, time.monotonic() + WAIT_S)
    leases._draining = {number: 1}
    leases._take([number], {})
    assert told == [(set(), 0), ({number}, 1)]


async def test_i29_replicas_whose_clocks_are_a_day_fast_and_slow_steal_nothing_and_keep_nothing(
    url: str, database: Database
) -> None:
    """A third one, whose clock is right, has its share for an hour."""
    schema = schema_of(url)
    database.sql(
        "insert into replica values ('~', 'right', clock_timestamp() + interval '1 hour'); "
        "update partition set owner = '~', epoch = 1, expires = clock_timestamp() + interval '1 hour' where id < 21; "
        "create view shares as select address, count(*) as share, max(epoch) as epoch, "
        "max(abs(extract(epoch from partition.expires - clock_timestamp()))) as off_s "
        "from partition join replica on replica.id = owner group by address",
        schema,
    )

    async def until(condition: str) -> None:
        await asyncio.to_thread(database.wait_for, condition, schema)

    astray = {
        name: run("-m", "tests.store.astray", url, name, off_s) for name, off_s in (("fast", DAY_S), ("slow", -DAY_S))
    }
    try:
        await until("select string_agg(share::text, ' ' order by address) in ('22 21 21', '21 21 22') from shares")
        await until("select max(off_s) < 60 from shares where address <> 'right'")
        stop(astray["fast"])
        await until("select share = 32 from shares where address = 'slow'")
        assert database.sql("select share, epoch from shares where address = 'right'", schema) == "21|1"
    finally:
        for process in astray.values():
            stop(process)


@pytest.mark.parametrize("off_s", [-DAY_S, DAY_S])
async def test_i29_a_wall_clock_that_is_set_while_a_lease_lasts_makes_it_neither_longer_nor_shorter(
    monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    async def renewed(db: Db, *parts: str, **values: object) -> Sequence[object]:
        return [{"id": partition, "epoch": 1} for partition in range(64)] if parts == ("renew",) else []

    now = time.time
    monkeypatch.setattr(leases_module, "fetch", renewed)
    long, short = Leases("", 64, WAIT_S), Leases("", 64, 0.05)
    for leases in (long, short):
        await leases._turn(None)  # type: ignore[arg-type]
    monkeypatch.setattr(time, "time", lambda: now() + off_s)
    await asyncio.sleep(0.05)
    assert (long.epoch_of(key()), short.epoch_of(key())) == (1, 0)
    assert (len(long.partitions), len(short.partitions)) == (64, 0)


async def _die(db: asyncpg.Connection[asyncpg.Record]) -> None:
    db.terminate()
