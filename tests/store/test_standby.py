"""A PostgreSQL primary with a synchronous standby: what is believed survives the loss of the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from amends_server.store.postgres import connections
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import Unavailable
from tests.chaos.database import Cluster, cluster
from tests.postgres import CannotRun
from tests.store.make import define, key, start, written

WAIT_S = 60


@pytest.fixture
def servers() -> Iterator[Cluster]:
    try:
        with cluster() as running:
            yield running
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


async def test_i20_a_commit_that_the_standby_does_not_have_is_not_believed(
    servers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "COMMAND_TIMEOUT_S", 1)
    store = PostgresStore(servers.url())
    await store.open()
    await define(store)
    await written(store, start(key("one")))
    await written_by_way_of(servers.url_of_both())
    servers.stop_standby()
    with pytest.raises(Unavailable):
        await store.commit([start(key("two"))])
    assert servers.sql("select count(*) from saga") == "2"  # the primary has it, and shows it
    with pytest.raises(Unavailable):
        await store.get_saga(key("two"))
    servers.start_standby()
    await read(store, "two")
    await store.close()
    servers.fail_over()
    heir = PostgresStore(servers.url())
    await heir.open()
    assert [row.key for row in await heir.list_unfinished(None, 9)] == [key("one"), key("two")]
    await heir.close()


async def read(store: PostgresStore, saga: str) -> None:
    """Read a saga as soon as it can be."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await store.get_saga(key(saga))
                return
            except Unavailable:
                await asyncio.sleep(0.1)


async def written_by_way_of(url: str) -> None:
    """See that of several servers the one is found that takes writes."""
    store = PostgresStore(url)
    await store.open()
    await store.check()
    await store.close()
