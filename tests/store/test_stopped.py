"""A process that is stopped anywhere in a transaction keeps others from its partitions for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from amends_server.store.postgres import connections
from amends_server.store.postgres.statements import Db
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import Append, StoredParticipant, Unavailable
from tests.postgres import CannotRun, Database, postgres
from tests.store.make import NOW, WAIT_S, append, define, in_the_end, key, records, start, written
from tests.store.proxy import BIND, WAITS, Messages, Proxy

LEASE_S = 1.0


async def test_i28_whoever_is_stopped_while_it_waits_for_the_server_keeps_its_locks_no_longer_than_a_lease(
    database: Database,
) -> None:
    await stop_everywhere(database.new_url(), WAITS, 0)


async def test_i28_whoever_is_stopped_in_the_midst_of_what_it_sends_keeps_its_locks_no_longer_than_a_lease(
    database: Database,
) -> None:
    await stop_everywhere(database.new_url(), WAITS, 3)


async def test_i28_newer_servers_break_off_who_is_stopped_before_the_last_bytes_of_what_it_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hurry() -> None:
        monkeypatch.setattr(connections, "COMMAND_TIMEOUT_S", 2.0)

    try:
        with postgres(18) as newer:
            await stop_everywhere(newer.new_url(), BIND, 0, hurry)
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL 18: {reason}")


async def test_everything_is_prepared_before_a_transaction_begins(database: Database) -> None:
    """Also before those that bring the tables up to date, and lock all of them."""
    async with opened(database.new_url()) as (store, proxy):
        await written(store, start(key("s0")))
        assert await store.commit(batch(0)) == [None] * len(batch(0))
        await store.check()
        await store.secret()
        await store.put_participant(
            StoredParticipant(name="bank", address="a:1", concurrency_max=1, actions=None, update_time=NOW)
        )
        await store.delete_participant("bank")
        await define(store, "unused")
        await store.delete_definition("default", "unused/1")
        store._doubts[0] = object()
        await store._settle(0)
        await store.begin_incarnation(NOW)
    counts = [list(prepared(stream)) for stream in proxy.streams]
    assert sum(len(each) for each in counts) == 13
    assert sum(sum(each) for each in counts) == 0


def prepared(stream: Messages) -> Iterator[int]:
    """Return how many statements were prepared in each transaction."""
    queries, count = iter(stream.queries), -1
    for kind in stream.types:
        if kind == ord("P") and count >= 0:
            count += 1
        elif kind == ord("Q"):
            query = next(queries)
            if query.startswith(b"BEGIN"):
                count = 0
            elif query.startswith((b"COMMIT", b"ROLLBACK")):
                yield count
                count = -1


async def stop_everywhere(url: str, types: bytes, more: int, hurry: Callable[[], None] = lambda: None) -> None:
    """Stop orchestrators at their first commit, one at each place, and have another one take all partitions.

    Those that are to be stopped are made after `hurry`.
    """
    other = PostgresStore(url)
    await other.open()
    async with AsyncExitStack() as stack:
        counting, proxy = await stack.enter_async_context(opened(url))
        proxy.count(types)
        await written(other, start(key("s0")))
        assert await counting.commit(batch(0)) == [None] * len(batch(0))
        places = range(1, proxy.sent + 1)
        await written(other, *(start(key(f"s{place}")) for place in places))
        hurry()
        stopped = [await stack.enter_async_context(opened(url, LEASE_S)) for _ in places]
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            for place, (store, proxy) in zip(places, stopped, strict=True):
                proxy.stop_after(place, more if place < len(places) else 0, types)
                tasks.create_task(commit_until_stopped(store, proxy, batch(place)))
            for _, proxy in stopped:
                await proxy.stopped.wait()
            await taken(other)
            for _, proxy in stopped:
                proxy.go_on()
    await other.close()


def batch(number: int) -> Sequence[Append]:
    """Return appends that need all that a commit may run."""
    old = key(f"s{number}")
    return [start(old), append(old, records(2)), start(key(f"new{number}"))]


@asynccontextmanager
async def opened(url: str, lease_s: float = 10.0) -> AsyncIterator[tuple[PostgresStore, Proxy]]:
    """Open a store, by a proxy of its own."""
    async with Proxy.before(url) as proxy:
        store = PostgresStore(proxy.url, lease_s)
        await in_the_end(store.open)
        yield store, proxy
        await store.close()


async def commit_until_stopped(store: PostgresStore, proxy: Proxy, appends: Sequence[Append]) -> None:
    while not proxy.stopped.is_set():  # on a busy machine the server may take it for stopped before it is
        with suppress(Unavailable):
            await store.commit(appends)


async def taken(store: PostgresStore) -> None:
    """Own all partitions, as soon as nobody else's transaction is in the way."""

    async def take(db: Db) -> object:
        return await db.execute("update partition set owner = 'me', epoch = epoch + 1")

    await in_the_end(lambda: store._connections.write(take))
