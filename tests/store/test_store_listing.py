"""What every store lists: sagas by filter and in pages, definitions and participants."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import pytest

from amends_server.engine.state import SagaStatus
from amends_server.store import listing
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import (
    Append,
    Cursor,
    InUse,
    NotFound,
    SagaFilter,
    Store,
    StoredParticipant,
    Unwritable,
)
from tests.store.make import NOW, append, birth, define, definition, key, records, start, written

T = TypeVar("T")


async def test_a_name_that_no_row_could_have_is_no_trouble_of_the_store(store: Store) -> None:
    with pytest.raises((NotFound, Unwritable)):
        await store.get_definition("default", name="a\0b")
    with pytest.raises((NotFound, Unwritable)):
        await store.get_definition("default", digest="a\0b")
    assert not await found_or_refused(store.list_definitions("default", "a\0b", None, 9))
    page = await found_or_refused(store.list_sagas(SagaFilter(namespace="default", definition_name="a\0b"), None, 9))
    assert page is None or page.sagas == []


async def found_or_refused(found: Awaitable[T]) -> T | None:
    try:
        return await found
    except Unwritable:
        return None


async def test_sagas_come_newest_first_then_by_id_in_pages(store: Store) -> None:
    created = {"c": 2, "a": 2, "old": 1, "new": 9, "b": 2}
    await written(store, *(start(key(name), birth(created=time)) for name, time in created.items()))
    assert await listed(store, SagaFilter(namespace="default"), page=2) == ["new", "a", "b", "c", "old"]
    assert await listed(store, SagaFilter(namespace="default"), page=100) == ["new", "a", "b", "c", "old"]
    assert await listed(store, SagaFilter(namespace="other")) == []


async def test_a_cursor_stands_where_its_saga_was(store: Store) -> None:
    await written(store, start(key("a"), birth(created=5)), start(key("c"), birth(created=5)))
    page = await store.list_sagas(SagaFilter(namespace="default"), Cursor(5, "b"), 10)
    assert [saga.key.saga_id for saga in page.sagas] == ["c"]
    assert page.after is None


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_page_tells_whether_there_are_more(store: Store, limit: int) -> None:
    await written(store, *(start(key(name), birth(created=5)) for name in "abcd"))
    first = await store.list_sagas(SagaFilter(namespace="default"), None, limit)
    assert first.after == Cursor(5, first.sagas[-1].key.saga_id)
    last = await store.list_sagas(SagaFilter(namespace="default"), Cursor(5, "c"), limit)
    assert [saga.key.saga_id for saga in last.sagas] == ["d"]
    assert last.after is None


@pytest.mark.parametrize(
    "conditions",
    [
        {"labels": {"even": "yes"}, "definition_name": "refund"},
        {"labels": {"even": "yes", "odd": "yes"}},
        {"labels": {"even": "yes"}, "statuses": frozenset({SagaStatus.COMPLETED, SagaStatus.STUCK})},
        {"definition_name": "order", "statuses": frozenset({SagaStatus.COMPLETED})},
        {"definition_name": "order", "definition_version": 2},
        {"definition_name": "order", "created_after": 7, "created_before": 90},
        {},
    ],
)
async def test_a_page_ends_after_a_number_of_rows_whatever_it_has_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, conditions: dict[str, object]
) -> None:
    monkeypatch.setattr(listing, "ROWS_LOOKED_AT", 6)
    where = SagaFilter(namespace="default", **conditions)  # type: ignore[arg-type]
    await fill_with_what_is_rare(store)
    whole = MemoryStore()
    await whole.open()
    await fill_with_what_is_rare(whole)
    expected = [saga.key.saga_id for saga in (await whole.list_sagas(where, None, 999)).sagas]
    for limit in (1, 4):
        assert await listed(store, where, limit) == expected


async def fill_with_what_is_rare(store: Store) -> None:
    def made(number: int) -> Append:
        born = birth(
            created=number // 2,  # some at the same time
            labels={"even" if number % 2 == 0 else "odd": "yes"},
            definition=("refund", 1) if number % 37 == 1 else ("order", 1 + (number % 31 == 0)),
        )
        status = SagaStatus.COMPLETED if number % 29 == 0 else SagaStatus.RUNNING
        return start(key(f"s{number:03}"), born, status=status)

    await written(store, *map(made, range(200)))


@pytest.mark.parametrize(
    ("conditions", "meant"),
    [
        ({"statuses": {SagaStatus.RUNNING}}, ["run2", "run1"]),
        ({"statuses": {SagaStatus.RUNNING, SagaStatus.STUCK}}, ["run2", "stuck", "run1"]),
        ({"statuses": {SagaStatus.COMPLETED, SagaStatus.STUCK}}, ["done2", "stuck", "done1"]),
        ({"statuses": {SagaStatus.COMPLETED}}, ["done2", "done1"]),
        ({"statuses": {SagaStatus.COMPENSATING}}, []),
        ({"unfinished_only": True}, ["run2", "stuck", "run1"]),
        ({"unfinished_only": True, "statuses": {SagaStatus.STUCK, SagaStatus.COMPLETED}}, ["stuck"]),
        ({"unfinished_only": True, "statuses": {SagaStatus.COMPLETED}}, []),
        ({"unfinished_only": True, "labels": {"tier": "gold"}}, ["run2"]),
        ({"definition_name": "order"}, ["done2", "run2", "stuck", "run1"]),
        ({"definition_name": "order", "definition_version": 2}, ["done2", "run2"]),
        ({"definition_name": "order", "statuses": {SagaStatus.COMPLETED}}, ["done2"]),
        ({"definition_name": "order", "statuses": {SagaStatus.STUCK}}, ["stuck"]),
        ({"definition_name": "refund", "statuses": {SagaStatus.STUCK}}, []),
        ({"definition_name": "nothing"}, []),
        ({"definition_version": 2}, ["done2", "run2"]),
        ({"labels": {"tier": "gold"}}, ["done2", "run2", "done1"]),
        ({"labels": {"tier": "gold", "region": "eu"}}, ["run2", "done1"]),
        ({"labels": {"region": "gold"}}, []),
        ({"labels": {"tier": "gold"}, "statuses": {SagaStatus.COMPLETED}}, ["done2", "done1"]),
        ({"labels": {"tier": "gold"}, "definition_name": "order"}, ["done2", "run2"]),
        ({"created_after": 2, "created_before": 4}, ["stuck", "done1"]),
        ({"created_after": 4, "definition_name": "order"}, ["done2", "run2"]),
        ({"created_before": 4, "labels": {"region": "eu"}}, ["done1", "run1"]),
        ({"created_after": 9}, []),
    ],
)
async def test_57_filters(store: Store, conditions: dict[str, object], meant: list[str]) -> None:
    await fill(store)
    if "statuses" in conditions:
        conditions = {**conditions, "statuses": frozenset(conditions["statuses"])}  # type: ignore[call-overload]
    where = SagaFilter(namespace="default", **conditions)  # type: ignore[arg-type]
    assert await listed(store, where, page=1) == meant
    assert await listed(store, where, page=50) == meant


async def test_57_a_saga_is_listed_by_its_status_of_now(store: Store) -> None:
    await written(store, start(key()))
    await written(store, append(key(), records(2), status=SagaStatus.COMPLETED))
    assert await listed(store, SagaFilter(namespace="default", statuses=frozenset({SagaStatus.RUNNING}))) == []
    assert await listed(store, SagaFilter(namespace="default", statuses=frozenset({SagaStatus.COMPLETED}))) == ["one"]


async def test_definitions_get_versions_by_name_and_are_found_in_every_way(store: Store) -> None:
    first, new = await store.put_definition(definition(content="a"))
    assert (first.version, new) == (1, True)
    second, new = await store.put_definition(definition(content="b"))
    assert (second.version, new) == (2, True)
    other, _ = await store.put_definition(definition("refund"))
    assert other.version == 1
    assert await store.put_definition(definition(content="a")) == (first, False)
    assert await store.get_definition("default", digest="order/a") == first
    assert await store.get_definition("default", name="order") == second
    assert await store.get_definition("default", name="order", version=1) == first


async def test_definitions_of_other_namespaces_are_others(store: Store) -> None:
    await store.put_definition(definition(content="a"))
    mine, new = await store.put_definition(definition(content="a", namespace="mine"))
    assert (mine.version, new) == (1, True)
    await store.delete_definition("mine", "order/a")
    assert (await store.get_definition("default", name="order")).version == 1


@pytest.mark.parametrize("wanted", [{"digest": "x"}, {"name": "x"}, {"name": "order", "version": 7}, {}])
async def test_unknown_definitions(store: Store, wanted: dict[str, object]) -> None:
    await store.put_definition(definition())
    with pytest.raises(NotFound):
        await store.get_definition("default", **wanted)  # type: ignore[arg-type]


async def test_definitions_are_listed_by_name_newest_version_first_in_pages(store: Store) -> None:
    for name, content in (("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("b", "3")):
        await store.put_definition(definition(name, content))
    await store.put_definition(definition("b", "1", namespace="other"))
    all_of_them = [("a", 1), ("b", 3), ("b", 2), ("b", 1), ("c", 1)]
    assert await listed_definitions(store, "", page=2) == all_of_them
    assert await listed_definitions(store, "", page=9) == all_of_them
    assert await listed_definitions(store, "b", page=2) == all_of_them[1:4]
    assert await listed_definitions(store, "d", page=2) == []
    assert [d.version for d in await store.list_definitions("default", "b", ("a", 1), 9)] == [3, 2, 1]
    assert await store.list_definitions("default", "b", ("c", 1), 9) == []


async def test_a_definition_is_removed_only_when_no_saga_has_it(store: Store) -> None:
    used, _ = await store.put_definition(definition(content="a"))
    await store.put_definition(definition(content="b"))
    born = birth(definition=(used.name, used.version), digest=used.digest)
    assert await store.commit([start(key(), born)]) == [None]
    with pytest.raises(InUse):
        await store.delete_definition("default", used.digest)
    await store.delete_definition("default", "order/b")
    with pytest.raises(NotFound):
        await store.delete_definition("default", "order/b")
    assert (await store.get_definition("default", name="order")).version == 1


async def test_i33_a_version_is_never_given_twice(store: Store) -> None:
    await store.put_definition(definition(content="a"))
    await store.put_definition(definition(content="b"))
    await store.delete_definition("default", "order/b")
    again, new = await store.put_definition(definition(content="c"))
    assert (again.version, new) == (3, True)


async def test_participants(store: Store) -> None:
    def made(name: str, address: str, actions: bytes | None = None) -> StoredParticipant:
        return StoredParticipant(name=name, address=address, concurrency_max=5, actions=actions, update_time=NOW)

    await store.put_participant(made("shipping", "h:1"))
    await store.put_participant(made("payment", "h:2", b"\x00"))
    await store.put_participant(made("shipping", "h:3", b""))
    assert await store.list_participants() == [made("payment", "h:2", b"\x00"), made("shipping", "h:3", b"")]
    await store.delete_participant("payment")
    assert await store.list_participants() == [made("shipping", "h:3", b"")]
    with pytest.raises(NotFound, match="payment"):
        await store.delete_participant("payment")


async def fill(store: Store) -> None:
    gold, eu = {"tier": "gold"}, {"region": "eu"}
    await written(
        store,
        start(key("run1"), birth(created=1, labels=eu)),
        start(key("done1"), birth(created=2, definition=("refund", 1), labels=gold | eu), status=SagaStatus.COMPLETED),
        start(key("stuck"), birth(created=3), status=SagaStatus.STUCK),
        start(key("run2"), birth(created=4, definition=("order", 2), labels=eu | gold)),
        start(key("done2"), birth(created=5, definition=("order", 2), labels=gold), status=SagaStatus.COMPLETED),
        start(key("else", "other"), birth(created=6, labels=gold)),
    )


async def listed(store: Store, where: SagaFilter, page: int = 10) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        got = await store.list_sagas(where, after, page)
        assert len(got.sagas) <= page
        found += [row.key.saga_id for row in got.sagas]
        if got.after is None:
            return found
        after = got.after


async def listed_definitions(store: Store, name: str, page: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while rows := await store.list_definitions("default", name, found[-1] if found else None, page):
        found += [(row.name, row.version) for row in rows]
    return found


async def test_what_is_due_is_counted(store: Store) -> None:
    """What is due of sagas nobody owns is known, too: nobody else would see that it waits."""
    await define(store)
    before = await store.sharing(NOW)
    assert [each.due_count for each in before.partitions] == [0] * len(before.partitions)
    assert {each.oldest_due_time for each in before.partitions} == {None}
    starts = [start(key(f"s{number}"), due=NOW + number) for number in range(8)]
    await written(store, *starts, start(key("never")), start(key("final"), status=SagaStatus.COMPLETED))
    shared = await store.sharing(NOW + 4)
    assert sum(each.due_count for each in shared.partitions) == 5
    assert min(each.oldest_due_time for each in shared.partitions if each.oldest_due_time is not None) == NOW
    assert [each.number for each in shared.partitions] == list(range(len(shared.partitions)))
    assert {(each.owner, each.claim_time, each.lease_left_us) for each in shared.partitions} == {("", None, None)}
