"""The definitions in memory: how much of them is kept, and when a name is certain to mean one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from amends_server import catalogue as catalogue_module
from amends_server.catalogue import Catalogue, Entry
from amends_server.convert.definition import definition_body
from amends_server.engine.definition import Definition, digest
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import StoredDefinition
from tests.server.house import PATIENCE_S, HandClock, House, MoodyStore, step


class SlowStore(MemoryStore):
    """Tells what it has read, and does what it has to write, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_tell, self.may_write = asyncio.Event(), asyncio.Event()
        self.may_tell.set()
        self.may_write.set()
        self.has_read, self.writes = asyncio.Event(), asyncio.Event()

    async def get_definition(
        self, namespace: str, *, name: str = "", version: int = 0, digest: str = ""
    ) -> StoredDefinition:
        found = await super().get_definition(namespace, name=name, version=version, digest=digest)
        self.has_read.set()
        await self.may_tell.wait()
        return found

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        self.writes.set()
        await self.may_write.wait()
        return await super().put_definition(definition)


@pytest.fixture
async def store() -> AsyncIterator[SlowStore]:
    made = SlowStore()
    await made.open()
    yield made
    await made.close()


def version_of(*steps: str) -> StoredDefinition:
    content = Definition(name="order", steps=tuple(step(each) for each in steps))
    return StoredDefinition(
        namespace="default",
        name="order",
        version=0,
        digest=digest(content),
        body=definition_body(content),
        create_time=0,
    )


def newest(catalogue: Catalogue) -> Entry | None:
    return catalogue.named("default", "order", 0)


async def test_the_newest_version_of_a_name_is_known_until_another_is_registered_or_it_is_removed(
    store: SlowStore,
) -> None:
    catalogue = Catalogue(store, sole=True)
    first, _ = await catalogue.register(version_of("a"))
    assert newest(catalogue) is None, "nobody has looked"
    assert await catalogue.find("default", name="order") is newest(catalogue) is first
    second, _ = await catalogue.register(version_of("a", "b"))
    assert newest(catalogue) is None
    assert await catalogue.find("default", name="order") is newest(catalogue) is second
    assert catalogue.named("default", "order", 1) is first
    assert catalogue.named("default", "order", 2) is second
    assert catalogue.named("default", "order", 3) is None
    await catalogue.delete(second.stored)
    assert newest(catalogue) is None
    assert catalogue.named("default", "order", 2) is None
    assert await catalogue.find("default", name="order") is newest(catalogue) is first
    catalogue.forget("default", first.stored.digest)
    assert newest(catalogue) is None
    assert catalogue._versions == {}


async def test_where_others_register_too_only_a_version_that_is_named_is_certain(store: SlowStore) -> None:
    catalogue, other = Catalogue(store), Catalogue(store)
    first, _ = await catalogue.register(version_of("a"))
    assert await catalogue.find("default", name="order") is first
    assert newest(catalogue) is None
    second, _ = await other.register(version_of("a", "b"))
    assert (await catalogue.find("default", name="order")).stored == second.stored
    assert catalogue.named("default", "order", 1) is first


async def test_what_was_read_before_another_version_was_registered_is_not_kept_as_the_newest(store: SlowStore) -> None:
    catalogue = Catalogue(store, sole=True)
    await catalogue.register(version_of("a"))
    store.may_tell.clear()
    finding = asyncio.create_task(catalogue.find("default", name="order"))
    await store.has_read.wait()
    await catalogue.register(version_of("a", "b"))
    store.may_tell.set()
    assert (await finding).stored.version == 1, "as it was when it was asked"
    assert newest(catalogue) is None


async def test_a_registration_that_goes_on_after_its_caller_gave_up_is_minded(store: SlowStore) -> None:
    catalogue = Catalogue(store, sole=True)
    await catalogue.register(version_of("a"))
    store.may_write.clear()
    store.writes.clear()
    registering = asyncio.create_task(catalogue.register(version_of("a", "b")))
    await store.writes.wait()
    registering.cancel()
    await asyncio.wait([registering])
    assert (await catalogue.find("default", name="order")).stored.version == 1
    store.may_write.set()
    async with asyncio.timeout(PATIENCE_S):
        while catalogue._changing:
            await asyncio.wait(catalogue._changing)
    assert newest(catalogue) is None
    assert (await catalogue.find("default", name="order")).stored.version == 2


async def test_i42_definitions_are_kept_by_their_size_and_the_least_used_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = await House(MoodyStore(), HandClock()).open()
    first, second, third = [await house.register(step(name)) for name in ("a", "b", "c")]
    monkeypatch.setattr(catalogue_module, "KEPT_BYTES_MAX", 3 * len(first.stored.body))
    house.catalogue.kept("default", first.stored.digest)
    large = await house.register(step("d"), step("e"))
    kept = [house.catalogue.kept("default", one.stored.digest) for one in (first, second, third, large)]
    assert kept == [first, None, None, large]
    house.catalogue.forget("default", first.stored.digest)
    house.catalogue.forget("default", first.stored.digest)
    again = await house.catalogue.find("default", digest=first.stored.digest)
    assert house.catalogue.kept("default", first.stored.digest) is again
    monkeypatch.setattr(catalogue_module, "KEPT_BYTES_MAX", 1)
    alone = await house.register(step("f"))
    assert house.catalogue.kept("default", alone.stored.digest) is alone
    assert house.catalogue.kept("default", first.stored.digest) is None
    await house.close()
