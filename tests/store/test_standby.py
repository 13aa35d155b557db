"""A PostgreSQL primary with a synchronous standby: nobody is told what is lost with the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import pytest

from amends_server.store.postgres.leases import Leases
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import NotFound, Unavailable
from tests.chaos.database import Cluster, cluster
from tests.postgres import CannotRun, Database, schema_of
from tests.store.make import WAIT_S, define, definition, in_the_end, key, start, written

TIMEOUT_S = 2.0
LEASE_S = 2.0


@pytest.fixture
def servers() -> Iterator[Cluster]:
    try:
        with cluster() as running:
            yield running
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


async def test_i20_what_the_standby_does_not_have_is_told_to_nobody(servers: Cluster) -> None:
    """Neither while it is gone, nor when it is promoted; and nobody owns anything until there is one again."""
    store, other = await opened(servers.url()), await opened(servers.url_of_both())
    store._connections._transactions._timeout_s = TIMEOUT_S
    await define(other)
    await written(other, start(key("one")))
    leases = Leases(servers.url(), 64, LEASE_S)
    await leases.start("127.0.0.1:1", lambda gained: None, tuple)
    await until(lambda: len(leases.partitions) == 64)

    servers.stop_standby()
    await unavailable(store.commit([start(key("two"))]))
    await asyncio.gather(*(unavailable(store.put_definition(definition(name))) for name in ("a", "b", "c", "d")))
    failed = leases.renewals.failed
    await until(lambda: leases.renewals.failed >= failed + 8)
    assert not leases.partitions
    await asyncio.gather(unavailable(store.get_saga(key("two"))), unavailable(store.commit([start(key("three"))])))
    for orchestrator in (store, other):
        assert [row.key for row in await orchestrator.list_unfinished(None, 9)] == [key("one")]
    with pytest.raises(NotFound):
        await other.get_saga(key("two"))
    waiting = "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()"
    assert int(servers.sql(f"{waiting} and query = 'COMMIT;'")) == 3, "each one is kept, and there is no other for it"
    assert int(servers.sql(f"{waiting} and query like '%replica%'")) <= 5, "sessions of before have ended"

    servers.start_standby()
    await until(lambda: len(leases.partitions) == 64)
    assert (await in_the_end(lambda: store.get_saga(key("two")))).key == key("two")
    assert (await other.get_saga(key("two"))).key == key("two")
    await in_the_end(lambda: written(store, start(key("four"))))
    await leases.stop()

    servers.stop_standby()
    await unavailable(store.commit([start(key("five"))]))
    await store.close()
    await other.close()
    servers.fail_over_to_what_was_lost()
    heir = await opened(servers.url())
    assert [row.key.saga_id for row in await heir.list_unfinished(None, 9)] == ["four", "one", "two"]
    await heir.close()


async def test_a_commit_that_takes_too_long_for_another_reason_is_left_to_the_server(database: Database) -> None:
    """Its connection is cut, for the answer may be lost; but it is not cancelled, and seen when it is over."""
    url = database.new_url()
    store = await opened(url)
    await define(store)
    await written(store, start(key("one")))
    store._connections._transactions._timeout_s = TIMEOUT_S / 2
    database.sql(
        "create function wait() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(1); return null; end $$;"
        " create constraint trigger wait after insert on event deferrable initially deferred"
        " for each row execute function wait()",
        schema_of(url),
    )
    blocking = await asyncpg.connect(url)
    async with blocking.transaction():
        await blocking.execute("select pg_advisory_xact_lock(1)")
        await unavailable(store.commit([start(key("two"))]))
        assert await in_the_end(lambda: store._connections.commit(lambda db: db.fetchval("select 1"))) == 1
    await blocking.close()
    assert (await in_the_end(lambda: store.get_saga(key("two")))).key == key("two")
    await store.close()


async def opened(url: str) -> PostgresStore:
    store = PostgresStore(url)
    await store.open()
    return store


async def unavailable(asked: Awaitable[object]) -> None:
    with pytest.raises(Unavailable):
        await asked


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - that a lease is over nobody tells
            await asyncio.sleep(0.05)
