"""Several servers in one URL: each is tried, though one that was named before it does not answer."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from amends_server.store.postgres import connections
from amends_server.store.postgres.leases import Leases
from amends_server.store.postgres.servers import servers_of, to_writer
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import Unavailable
from tests.postgres import Database
from tests.store.proxy import Proxy

WAIT_S = 60
LEASE_S = 4.0


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("postgresql:///sagas", ["postgresql:///sagas"]),
        ("postgresql://me:secret@a:1/sagas?port=2", ["postgresql://me:secret@a:1/sagas?port=2"]),
        (
            "postgresql://me:secret@a:1,[::1]:2/sagas?sslmode=disable",
            [
                "postgresql://me:secret@a:1/sagas?sslmode=disable",
                "postgresql://me:secret@[::1]:2/sagas?sslmode=disable",
            ],
        ),
        (
            "postgresql://me@/sagas?host=/a,b:3&sslmode=disable",
            [
                "postgresql://me@/sagas?host=%2Fa&sslmode=disable",
                "postgresql://me@/sagas?host=b%3A3&sslmode=disable",
            ],
        ),
        (
            "postgresql:///sagas?host=a,a&port=1,2",
            ["postgresql:///sagas?host=a&port=1", "postgresql:///sagas?host=a&port=2"],
        ),
        ("postgresql:///sagas?host=a,b,c&port=1,2", ["postgresql:///sagas?host=a,b,c&port=1,2"]),
    ],
)
def test_each_server_has_a_url(url: str, servers: list[str]) -> None:
    assert servers_of(url) == servers


@pytest.mark.parametrize(
    ("url", "sought"),
    [
        ("postgresql://a/sagas", ""),
        ("postgresql://a,b/sagas", "?target_session_attrs=read-write"),
        ("postgresql:///sagas?host=/a,/b", "&target_session_attrs=read-write"),
        ("postgresql://a,b/sagas?target_session_attrs=any", ""),
        ("postgresql://me:one,two@a/sagas", ""),
    ],
)
def test_of_several_servers_the_one_is_sought_that_takes_writes(url: str, sought: str) -> None:
    assert to_writer(url) == url + sought


async def test_i28_a_machine_that_is_gone_keeps_nobody_from_the_server_that_is_named_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says that it is: what is sent there is lost, and connections are not refused."""
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT_S", 2.0)
    url = database.new_url()
    async with Proxy.before(url) as gone, Proxy.before(url) as heir:
        gone.hang()
        both = gone.url.replace(place(gone), f"{place(gone)},{place(heir)}")
        store, leases = PostgresStore(both), Leases(both, 64, LEASE_S)
        async with asyncio.timeout(WAIT_S):
            await opened(store)
            await store.check()
            await leases.start("127.0.0.1:1", lambda gained: None, tuple)
            while not leases.partitions:  # noqa: ASYNC110 - on a busy machine it may be too late for the first time
                await asyncio.sleep(0.05)
        await leases.stop()
        await store.close()


def place(proxy: Proxy) -> str:
    return urlsplit(proxy.url).netloc.rpartition("@")[2]


async def opened(store: PostgresStore) -> None:
    """Open the store, though the machine is so busy that nobody answers in time at first."""
    while True:
        try:
            return await store.open()
        except Unavailable:
            continue
