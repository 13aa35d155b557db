"""What is PostgreSQL's own: who may write, connections that break, migrations at the same time, and clear errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import asyncpg
import pytest

from amends_server.engine.state import SagaStatus
from amends_server.journal import BATCH_BYTES_MAX, Journal
from amends_server.store.migration import Migration, load_migrations
from amends_server.store.partition import partition_of
from amends_server.store.postgres import connections as connections_module
from amends_server.store.postgres import sagas
from amends_server.store.postgres import store as store_module
from amends_server.store.postgres.statements import Db, fetch, statement
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.postgres.trouble import place_of
from amends_server.store.protocol import Append, InUse, Record, Stale, StoreError, Unavailable, Unwritable
from tests.postgres import CannotRun, Database, postgres, schema_of
from tests.store.make import NOW, WAIT_S, append, birth, define, definition, in_the_end, key, records, start, written
from tests.store.proxy import Proxy
from tests.store.survival import acknowledged_before_a_kill, assert_all_are_there, assert_all_is_there_again
from tests.store.test_journal import Told


async def take(store: PostgresStore) -> int:
    """Own all partitions, and return their epoch."""

    async def work(db: Db) -> int:
        rows = await db.fetch("update partition set owner = 'me', epoch = epoch + 1 returning epoch")
        return int(rows[0]["epoch"])

    return await store._connections.write(work)


async def test_everything_is_there_after_opening_again(database: Database) -> None:
    url = database.new_url()
    store = PostgresStore(url)
    await store.open()
    await take(store)
    await assert_all_is_there_again(store, PostgresStore(url))


async def test_i42_what_cannot_be_written_is_refused_alone(database: Database) -> None:
    store, told = PostgresStore(database.new_url()), Told()
    await store.open()
    await take(store)
    await define(store)
    journal = Journal(store)
    for number in range(20):
        journal.append(start(key(f"s{number}")), told.as_(f"s{number}"))
    random = Random(1).randbytes(4_000).hex()  # not to be made smaller than a page of an index
    journal.append(start(key("null \0")), told.as_("NUL"))
    journal.append(start(key("half"), birth(labels={"a": "\ud800"})), told.as_("half a character"))
    journal.append(start(key("number"), due=1 << 70), told.as_("a number"))
    journal.append(start(key("label"), birth(labels={"a": random})), told.as_("an entry of an index"))
    journal.start()
    outcomes = dict(await told.until(24))
    assert [name for name, error in outcomes.items() if error is Unwritable] == [
        "NUL", "half a character", "a number", "an entry of an index",
    ]  # fmt: skip
    assert list(outcomes.values()).count(None) == 20
    assert len(await store.list_unfinished(None, 99)) == 20
    await journal.close()
    await store.close()


async def test_a_burst_of_large_payloads_is_committed_in_order_and_never_in_one_message(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one transaction they would meet the limit of the protocol, or that of a statement's time."""
    told, journal, sizes = Told(), Journal(postgres_store), list[int]()
    commit = postgres_store.commit

    async def counted(appends: Sequence[Append]) -> list[StoreError | None]:
        sizes.append(sum(len(record.body) for each in appends for record in each.records))
        return await commit(appends)

    monkeypatch.setattr(postgres_store, "commit", counted)
    await take(postgres_store)
    await define(postgres_store)
    large, names = Random(1).randbytes(1 << 20), ["one", "two", "three"]
    written_of = {name: list[Record]() for name in names}
    for place in range(48):  # of each saga, sixteen of 64 KiB up to 1 MiB
        name = names[place % 3]
        record = records(len(written_of[name]) + 1, body=large[: (1 + place % 16) << 16])
        journal.append(append(key(name), record), told.as_(f"{place}"))
        written_of[name] += record
    journal.start()
    assert await told.until(48) == [(f"{place}", None) for place in range(48)]
    await journal.close()
    assert max(sizes) <= BATCH_BYTES_MAX < sum(sizes)
    for name in names:
        assert await postgres_store.read_records(key(name), 0, 99) == written_of[name]
        assert (await postgres_store.get_saga(key(name))).head.sequence == 16


async def test_i24_a_stale_owner_writes_nothing(database: Database) -> None:
    url = database.new_url()
    old, new = PostgresStore(url), PostgresStore(url)
    await old.open()
    await new.open()
    assert await take(old) == 1
    await written(old, start(key()))
    assert await take(new) == 2
    outcomes = await old.commit([append(key(), records(2)), start(key("two"))])
    assert [type(outcome) for outcome in outcomes] == [Stale, Stale]
    assert [(saga.key, saga.head.sequence) for saga in await new.list_unfinished(None, 9)] == [(key(), 1)]
    await written(new, append(key(), records(2), epoch=2), start(key("two"), epoch=2))
    await old.close()
    await new.close()


async def test_i25_whoever_runs_on_after_a_restore_in_an_epoch_that_there_is_not_yet_writes_nothing(
    database: Database,
) -> None:
    store = PostgresStore(database.new_url())
    await store.open()
    assert await take(store) == 1
    await written(store, start(key()))
    outcomes = await store.commit([append(key(), records(2), epoch=7), start(key("two"), epoch=7)])
    assert [type(outcome) for outcome in outcomes] == [Stale, Stale]
    await store.close()


async def test_i24_a_change_of_owner_waits_for_a_commit_under_way(database: Database) -> None:
    url = database.new_url()
    old, new = PostgresStore(url), PostgresStore(url)
    await old.open()
    await new.open()
    await take(old)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(db: Db) -> None:
        one = {"namespaces": ["default"], "saga_ids": ["one"], "places": [0], "partition_of": [7]}
        assert len(await fetch(db, "find_sagas", partitions=[7], **one)) == 1
        entered.set()
        await go_on.wait()

    committing = asyncio.create_task(old._connections.commit(slow))
    async with asyncio.timeout(WAIT_S):
        await entered.wait()
        taking = asyncio.create_task(take(new))
        await database.locked()
        assert not taking.done()
        go_on.set()
        await committing
        assert await taking == 2
    await old.close()
    await new.close()


async def test_i18_two_that_get_in_each_others_way_both_succeed(postgres_store: PostgresStore) -> None:
    met = [asyncio.Event(), asyncio.Event()]
    attempts = [0, 0]

    async def cross(me: int, first: int, second: int, db: Db) -> None:
        attempts[me] += 1
        await db.execute("update partition set epoch = epoch + 1 where id = $1", first)
        met[me].set()
        if attempts[me] == 1:
            await met[1 - me].wait()
        await db.execute("update partition set epoch = epoch + 1 where id = $1", second)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(
            postgres_store._connections.write(lambda db: cross(0, 1, 2, db)),
            postgres_store._connections.write(lambda db: cross(1, 2, 1, db)),
        )
    assert sorted(attempts) == [1, 2]
    counted = "select epoch from partition where id in (1, 2)"
    epochs = await postgres_store._connections.read(lambda db: db.fetch(counted))
    assert [row["epoch"] for row in epochs] == [2, 2]  # counted up by each once


@pytest.mark.parametrize("committed", [True, False])
async def test_i31_a_connection_that_breaks_during_commit(database: Database, committed: bool) -> None:
    url = database.new_url()
    direct = PostgresStore(url)
    await direct.open()
    await take(direct)
    async with Proxy.before(url) as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        await written(store, start(key()))
        batch = [append(key(), records(2, 2)), start(key("two")), append(key("two"), records(2))]
        proxy.break_at_commit(pass_on=committed)
        with pytest.raises(Unavailable):
            await store.commit(batch)
        assert proxy.broke
        if committed:
            await asyncio.to_thread(database.wait_for, "select count(*) = 5 from event", schema_of(url))
        else:
            assert (await direct.get_saga(key())).head.sequence == 1
        assert await store.commit(batch) == [None, None, None]
        assert await store.commit(batch) == [None, None, None]
        await store.close()
    assert await direct.read_records(key(), 0, 9) == [*records(1), *records(2, 2)]
    assert await direct.read_records(key("two"), 0, 9) == records(1, 2)
    await direct.close()


async def test_i31_what_a_commit_that_comes_late_has_written_is_not_overlooked(database: Database) -> None:
    """The server gets the COMMIT when its client has given the connection up and looks what became of it."""
    url = database.new_url()
    async with Proxy.before(url) as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        await define(store)
        await take(store)
        late = asyncio.Event()
        proxy.break_at_commit(pass_on=True, late=late)
        with pytest.raises(Unavailable):
            await store.commit([start(key())])
        readers = [asyncio.create_task(store.get_saga(key())) for _ in range(2 * connections_module.READERS)]
        await database.locked()
        async with asyncio.timeout(WAIT_S):
            assert await store.list_participants() == []  # there are connections left for others
        late.set()
        assert [row.head.sequence for row in await asyncio.gather(*readers)] == [1] * len(readers)
        await store.close()


async def test_a_transaction_of_a_process_that_hangs_keeps_others_waiting_no_longer_than_a_lease(
    database: Database,
) -> None:
    url = database.new_url()
    hanging, other = PostgresStore(url, lease_s=1.0), PostgresStore(url)
    await hanging.open()
    await other.open()

    async def hang(db: Db) -> None:
        await db.fetch("select id from partition for share")
        entered.set()
        await go_on.wait()

    entered, go_on = asyncio.Event(), asyncio.Event()
    stopped = asyncio.create_task(hanging._connections.commit(hang))
    await entered.wait()
    async with asyncio.timeout(WAIT_S):
        assert await take(other) == 1
    go_on.set()
    with pytest.raises(Unavailable):
        await stopped
    await hanging.close()
    await other.close()


async def test_connections_that_the_server_ends_are_made_anew(
    database: Database, postgres_store: PostgresStore
) -> None:
    await written(postgres_store, start(key()))
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    await in_the_end(lambda: written(postgres_store, append(key(), records(2))))
    await in_the_end(postgres_store.check)
    assert (await postgres_store.get_saga(key())).head.sequence == 2


async def test_a_cancelled_caller_leaves_its_batch_whole_or_absent(postgres_store: PostgresStore) -> None:
    await define(postgres_store)
    for number in range(30):
        batch = [start(key(f"{number}-{part}")) for part in range(30)]
        task = asyncio.create_task(postgres_store.commit(batch))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await postgres_store.commit([start(key(f"after-{number}"))])
    found = [row.key.saga_id for row in await postgres_store.list_unfinished(None, 9_999)]
    parts = [sum(name.startswith(f"{number}-") for name in found) for number in range(30)]
    assert set(parts) <= {0, 30}
    assert sum(name.startswith("after-") for name in found) == 30


@pytest.mark.parametrize("lines", [1, 200])
async def test_i20_kill_9_of_a_writer_loses_nothing_acknowledged(database: Database, lines: int) -> None:
    url = database.new_url()
    acknowledged = acknowledged_before_a_kill(url, lines)
    store = PostgresStore(url)
    await store.open()
    await assert_all_are_there(store, acknowledged)
    await store.close()


async def test_replicas_that_start_at_the_same_time_on_an_empty_database(database: Database) -> None:
    url = database.new_url()
    stores = [PostgresStore(url) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    schema = schema_of(url)
    applied = database.sql("select number, name from migration where number > 0 order by number", schema)
    assert applied.split("\n") == [f"{migration.number}|{migration.name}" for migration in load_migrations("postgres")]
    assert database.sql("select count(*) from partition", schema) == "64"
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.parametrize(
    "error", [asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError]
)
async def test_what_another_replica_makes_in_the_same_moment_is_found_there(
    postgres_store: PostgresStore, error: type[asyncpg.PostgresError]
) -> None:
    tries: list[Db] = []

    async def make(db: Db) -> int:
        tries.append(db)
        if len(tries) == 1:
            raise error('type "migration" already exists')
        return len(tries)

    assert await postgres_store._connections.migrate(make) == 2


async def test_replicas_that_register_a_definition_at_the_same_time_get_one(database: Database) -> None:
    url = database.new_url()
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    answers = await asyncio.gather(*(store.put_definition(definition()) for store in stores))
    assert {stored.version for stored, _ in answers} == {1}
    assert [new for _, new in answers].count(True) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_definition_cannot_be_removed_while_a_saga_of_it_begins(database: Database) -> None:
    url = database.new_url()
    beginning, removing = PostgresStore(url), PostgresStore(url)
    await beginning.open()
    await removing.open()
    await define(beginning)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(db: Db) -> object:
        outcomes = await sagas.commit([start(key())], 64, db)
        entered.set()
        await go_on.wait()
        return outcomes

    committing = asyncio.create_task(beginning._connections.commit(slow))
    async with asyncio.timeout(WAIT_S):
        await entered.wait()
        removed = asyncio.create_task(removing.delete_definition("default", "order/1"))
        await database.locked()
        go_on.set()
        assert await committing == [None]
        with pytest.raises(InUse):
            await removed
    await beginning.close()
    await removing.close()


async def test_a_newer_schema(database: Database) -> None:
    url = database.new_url()
    store = PostgresStore(url)
    await store.open()
    await store.close()
    database.sql("insert into migration values (99, 'future')", schema_of(url))
    with pytest.raises(Unavailable, match=r"schema 99.*newer version"):
        await store.open()


async def test_what_was_prepared_is_prepared_anew_when_another_version_has_migrated(
    database: Database, postgres_store: PostgresStore
) -> None:
    await postgres_store.check()
    await postgres_store._connections.write(lambda db: db.execute("alter table meta alter column value type numeric"))
    await postgres_store.check()


async def test_a_migration_may_take_longer_than_other_statements(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.new_url()
    first = PostgresStore(url)
    await first.open()
    await first.close()
    monkeypatch.setattr(connections_module, "COMMAND_TIMEOUT_S", 1)
    slow = Migration(len(load_migrations("postgres")) + 1, "slow", "select pg_sleep(1.5)")
    monkeypatch.setattr(store_module, "load_migrations", lambda store: [*load_migrations(store), slow])
    stores = [PostgresStore(url), PostgresStore(url)]  # one of them waits for the other
    await asyncio.gather(*(in_the_end(store.open) for store in stores))  # what is broken off would be so each time
    await asyncio.gather(*(store.close() for store in stores))


async def test_several_hosts_of_which_one_takes_writes(database: Database) -> None:
    parts = database.new_url().replace(f"host={database.folder}", f"host=/nowhere,{database.folder}")
    store = PostgresStore(parts + "&target_session_attrs=primary")
    await store.open()
    await store.check()
    await store.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:secret@a:1,b:2/sagas", "me@a:1,b:2/sagas"),
        ("postgresql://me@/sagas", "me@localhost:5432/sagas"),
        ("postgresql://[::1]/sagas?port=6", "[::1]:6/sagas"),
        ("postgresql:///sagas?host=/run", "/run:5432/sagas"),
    ],
)
def test_a_place_is_named_without_its_password(url: str, place: str) -> None:
    assert place_of(url) == place


async def test_a_server_that_hangs_is_given_up_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "COMMAND_TIMEOUT_S", 1)
    monkeypatch.setattr(connections_module, "CONNECT_TIMEOUT_S", 1)
    async with Proxy.before(database.new_url()) as proxy:
        store = PostgresStore(proxy.url)
        await in_the_end(store.open)
        await in_the_end(lambda: define(store))
        # so that all is prepared, and nothing but the transaction is asked
        await in_the_end(lambda: written(store, start(key("before"))))
        proxy.hang()
        async with asyncio.timeout(WAIT_S):
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await store.commit([start(key())])
                with pytest.raises(Unavailable):
                    await store.list_participants()
        proxy.go_on()
        await in_the_end(lambda: store.commit([start(key())]))
        await store.close()


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"database me@127\.0\.0\.1:1/sagas cannot be reached") as refused:
        await PostgresStore("postgresql://me:secret@127.0.0.1:1/sagas").open()
    assert "secret" not in str(refused.value)


async def test_a_database_that_is_not_there(database: Database) -> None:
    with pytest.raises(Unavailable, match="does not exist: create it"):
        await PostgresStore(database.url("nothing")).open()


async def test_a_user_that_is_not_known(database: Database) -> None:
    with pytest.raises(Unavailable, match="does not let this user in"):
        await PostgresStore(database.url(user="nobody")).open()


async def test_a_schema_that_a_user_may_not_see(database: Database) -> None:
    database.sql("create role stranger login")
    with pytest.raises(Unavailable, match="create it, or grant usage on it"):
        await PostgresStore(database.new_url().replace("amends@", "stranger@")).open()


async def test_a_user_without_rights(database: Database) -> None:
    url = database.new_url()
    store = PostgresStore(url)
    schema = schema_of(url)
    database.sql(f"create role guest login; grant usage on schema {schema} to guest")
    guest = PostgresStore(url.replace("amends@", "guest@"))
    with pytest.raises(Unavailable, match="does not give this user the rights"):
        await guest.open()
    await store.open()
    database.sql(f"grant select, insert, update, delete on all tables in schema {schema} to guest")
    await guest.open()  # up to date, so that it needs no right to make tables
    await take(guest)
    await written(guest, start(key(), birth(labels={"a": "b"})))
    await guest.close()
    await store.close()


async def test_a_database_that_may_only_be_read(database: Database) -> None:
    with pytest.raises(Unavailable, match="can only be read"):
        await PostgresStore(database.new_url() + "&default_transaction_read_only=on").open()


async def test_i37_a_server_that_may_only_be_read_is_left_as_soon_as_there_is_another_one(database: Database) -> None:
    """As after a failover, when a name leads to a standby for a while: nothing is read there, for it may be old."""
    database.sql("create role fickle superuser login")
    store = PostgresStore(database.new_url().replace("amends@", "fickle@"))
    await store.open()
    await define(store)
    await written(store, start(key()))
    database.sql("alter role fickle set default_transaction_read_only = on")
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'fickle'")
    for expected in (".", "can only be read"):  # the connections of before are found broken first
        with pytest.raises(Unavailable, match=expected):
            await store.commit([start(key("two"))])
        with pytest.raises(Unavailable, match=expected):
            await store.get_saga(key())
    database.sql("alter role fickle reset default_transaction_read_only")
    assert (await store.get_saga(key())).key == key()
    await written(store, start(key("two")))
    await store.close()


async def test_a_version_that_is_too_old(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "VERSION_MIN", 990_000)
    with pytest.raises(Unavailable, match=r"has version \d\d, which is too old: 99 or newer"):
        await PostgresStore(database.new_url()).open()


@pytest.mark.parametrize("setting", ["off", "local"])
async def test_commits_are_on_disk_whatever_the_database_says(database: Database, setting: str) -> None:
    store = PostgresStore(f"{database.new_url()}&synchronous_commit={setting}")
    await store.open()
    shown = await store._connections.commit(lambda db: db.fetchval("show synchronous_commit"))
    assert shown == "on"
    await store.close()


async def test_settings_are_made_once_there_is_a_connection(postgres_store: PostgresStore) -> None:
    """Poolers refuse most that come with a connection."""
    query = "select setting, source from pg_settings where name = 'idle_in_transaction_session_timeout'"
    shown = await postgres_store._connections.commit(lambda db: db.fetchrow(query))
    assert tuple(shown or ()) == ("10000", "session")


def test_partitions_are_the_same_for_ever() -> None:
    assert [partition_of(key(name, "space"), 64) for name in ("a", "b", "order-42", "ünï")] == [28, 38, 0, 12]
    spread = [partition_of(key(f"order-{number}"), 64) for number in range(64_000)]
    assert max(spread.count(part) for part in range(64)) < 1_200


async def test_every_page_reads_an_index(database: Database) -> None:
    url = database.new_url()
    store = PostgresStore(url)
    await store.open()
    await store.close()
    listings = [(index, "matching") for index in ("by_time", "by_definition", "by_label")]
    pages = (*listings, ("by_status", "matching", "end_by_status"), ("by_due_time",), ("unfinished",))
    counts = [(f"reach_by_{index}",) for index in ("time", "status", "definition", "label")]
    for parts in (*(("select_saga", *each) for each in pages), *counts):
        query = statement(*parts).sql
        plan = database.sql(f"set enable_seqscan = off; explain (generic_plan) {query}", schema_of(url))
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan


async def test_the_driver_is_not_asked_for_anything_when_a_connection_is_given_back(
    postgres_store: PostgresStore,
) -> None:
    counted: list[asyncpg.LoggedQuery] = []
    await postgres_store.list_unfinished(None, 1)  # the driver looks the types up that it meets for the first time
    await postgres_store._connections.read(lambda db: _listen(db, counted))
    await postgres_store.list_unfinished(None, 1)
    assert len(counted) == 1


async def _listen(db: Db, counted: list[asyncpg.LoggedQuery]) -> None:
    db.add_query_logger(counted.append)


async def test_a_batch_takes_six_round_trips(postgres_store: PostgresStore) -> None:
    counted: list[asyncpg.LoggedQuery] = []
    await written(postgres_store, *(start(key(f"s{number}")) for number in range(100)))
    await postgres_store._connections.commit(lambda db: _listen(db, counted))
    counted.clear()
    await written(
        postgres_store,
        *(append(key(f"s{number}"), records(2, 3), status=SagaStatus.COMPLETED) for number in range(100)),
        *(start(key(f"t{number}"), birth(labels={"a": "b"})) for number in range(100)),
    )
    sent = [query.query for query in counted if query.args != []]  # what is prepared already costs none
    assert len(sent) == 6, sent  # begin, find twice, insert, move, commit


async def test_the_newest_version_of_postgresql_that_is_tested() -> None:
    try:
        with postgres(18) as newer:
            store = PostgresStore(newer.new_url())
            await store.open()
            await take(store)
            await written(store, start(key(), birth(labels={"a": "b"}), due=NOW))
            await written(store, append(key(), records(2)), start(key("two")))
            assert [saga.key.saga_id for saga in await store.list_unfinished(None, 9)] == ["one", "two"]
            await store.close()
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL 18: {reason}")


async def test_what_is_pending_is_said_and_not_done(database: Database) -> None:
    url = database.new_url()
    known = [migration.name for migration in load_migrations("postgres")]
    for _ in range(2):
        assert [migration.name for migration in await PostgresStore(url).pending()] == known
    store = PostgresStore(url)
    await store.open()
    await store.close()
    assert await PostgresStore(url).pending() == []
