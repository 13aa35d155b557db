"""What every store does with sagas: appends, refusals, rows, journals and the lists for recovery."""

from __future__ import annotations

import pytest

from amends_server.engine.policy import SECOND_US
from amends_server.engine.state import SagaStatus
from amends_server.store.incarnation import EPOCHS, incarnation_of
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import (
    AlreadyExists,
    Append,
    Conflict,
    NotFound,
    SagaKey,
    Store,
    StoredSaga,
    Unavailable,
    Undefined,
)
from tests.store.make import NOW, append, birth, committed, define, definition, key, records, start, written


async def test_a_saga_is_read_back_as_it_was_written(store: Store) -> None:
    labels = {"customer": "7", "ünïcode": "„quoted“ \"'\\"}
    first = append(
        key(), records(1, 2, b"\x00\xff"), born=birth(labels=labels), due=NOW + 5, epoch=3, paused=True
    )  # fmt: skip
    await written(store, first)
    assert first.birth is not None
    assert await store.get_saga(key()) == StoredSaga(key=key(), birth=first.birth, head=first.head)
    assert await store.read_records(key(), 0, 10) == first.records


@pytest.mark.parametrize("status", SagaStatus)
async def test_every_status_is_kept(store: Store, status: SagaStatus) -> None:
    await written(store, start(key(), status=status))
    assert (await store.get_saga(key())).head.status is status


async def test_unknown_sagas(store: Store) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await store.get_saga(key("nobody"))
    assert await store.read_records(key("nobody"), 0, 10) == []


async def test_namespaces_are_apart(store: Store) -> None:
    await written(store, start(key("x", "a")), append(key("x", "b"), records(1, 3)))
    assert (await store.get_saga(key("x", "a"))).head.sequence == 1
    assert len(await store.read_records(key("x", "b"), 0, 10)) == 3


async def test_records_are_read_in_pages(store: Store) -> None:
    await written(store, append(key(), records(1, 5)))
    assert [record.sequence for record in await store.read_records(key(), 0, 2)] == [1, 2]
    assert [record.sequence for record in await store.read_records(key(), 2, 2)] == [3, 4]
    assert [record.sequence for record in await store.read_records(key(), 4, 2)] == [5]
    assert await store.read_records(key(), 5, 2) == []


async def test_appends_follow_each_other_in_one_batch_and_over_batches(store: Store) -> None:
    await written(store, start(key()), append(key(), records(2, 2)), append(key(), records(4)))
    await written(store, append(key(), records(5)), append(key(), records(6), status=SagaStatus.COMPLETED))
    assert [record.sequence for record in await store.read_records(key(), 0, 10)] == [1, 2, 3, 4, 5, 6]
    head = (await store.get_saga(key())).head
    assert (head.sequence, head.status, head.end_time) == (6, SagaStatus.COMPLETED, NOW + 6)


async def test_a_taken_key(store: Store) -> None:
    await written(store, start(key()))
    assert_refused(await store.commit([append(key(), records(1, body=b"other"))]), AlreadyExists)
    assert await store.read_records(key(), 0, 10) == records(1)


async def test_a_key_that_was_taken_in_the_same_batch(store: Store) -> None:
    outcomes = await committed(store, start(key()), append(key(), records(1, body=b"other")), start(key("two")))
    assert_refused(outcomes, None, AlreadyExists, None)
    assert await store.read_records(key(), 0, 10) == records(1)


async def test_an_append_to_no_saga(store: Store) -> None:
    assert_refused(await store.commit([append(key(), records(2))]), NotFound)
    assert await store.read_records(key(), 0, 10) == []


@pytest.mark.parametrize("first", [2, 3, 5, 9])
async def test_an_append_at_another_place_than_the_head(store: Store, first: int) -> None:
    await written(store, append(key(), records(1, 3)))
    assert_refused(await store.commit([append(key(), records(first, 2, b"other"))]), Conflict)
    assert await store.read_records(key(), 0, 10) == records(1, 3)
    assert (await store.get_saga(key())).head.sequence == 3


async def test_a_refused_append_takes_later_ones_of_its_saga_along_and_no_others(store: Store) -> None:
    await written(store, start(key("bad")), start(key("good")))
    outcomes = await store.commit([
        append(key("good"), records(2)),
        append(key("bad"), records(3)),
        append(key("bad"), records(2)),  # would fit, but its writer built it on what was refused
        append(key("good"), records(3)),
        start(key("new")),
    ])  # fmt: skip
    assert_refused(outcomes, None, Conflict, Conflict, None, None)
    assert [(await store.get_saga(key(name))).head.sequence for name in ("good", "bad", "new")] == [3, 1, 1]


async def test_i31_an_append_that_is_stored_already_is_accepted_and_not_doubled(store: Store) -> None:
    first, second = append(key(), records(1, 2)), append(key(), records(3, 2), due=NOW)
    await written(store, first, second)
    await written(store, second)
    await written(store, first)
    await written(store, first, second, append(key(), records(5)), append(key(), records(5)))
    assert await store.read_records(key(), 0, 10) == records(1, 5)
    assert (await store.get_saga(key())).head.sequence == 5


async def test_i31_an_append_again_that_reaches_from_the_stored_into_the_same_batch(store: Store) -> None:
    await written(store, append(key(), records(1, 2)))
    await written(store, append(key(), records(3)), append(key(), records(2, 2)))
    assert_refused(await store.commit([append(key(), records(4)), append(key(), records(3, 2, b"no"))]), None, Conflict)
    assert await store.read_records(key(), 0, 10) == records(1, 4)


async def test_i20_a_saga_is_born_only_if_its_definition_is_stored(store: Store) -> None:
    await define(store)
    there, gone = start(key("there")), start(key("gone"), birth(definition=("refund", 1)))
    outcomes = await store.commit([gone, there, append(key("gone"), records(2))])
    assert_refused(outcomes, Undefined, None, Conflict)
    with pytest.raises(NotFound):
        await store.get_saga(key("gone"))
    assert_refused(await store.commit([start(key("there", "other"))]), Undefined)


async def test_i33_a_definition_that_was_removed_and_came_back_is_another_version(store: Store) -> None:
    await define(store)
    await store.delete_definition("default", "order/1")
    assert_refused(await store.commit([start(key())]), Undefined)
    again, _ = await store.put_definition(definition(content="1"))
    assert_refused(await store.commit([start(key())]), Undefined)
    await written(store, start(key("two"), birth(definition=("order", again.version), digest=again.digest)))


async def test_a_saga_that_is_there_needs_nobody_to_look_for_its_definition(store: Store) -> None:
    await written(store, start(key()))
    assert_refused(await store.commit([start(key()), append(key(), records(2))]), None, None)
    other = append(key(), records(1, body=b"other"), born=birth(definition=("refund", 1)))
    assert_refused(await store.commit([other]), AlreadyExists)


async def test_i24_nobody_of_an_earlier_epoch_writes_to_a_saga(store: Store) -> None:
    await written(store, start(key(), epoch=2), start(key("mine"), epoch=1))
    stale = [append(key(), records(2), epoch=1), append(key("mine"), records(2), epoch=1)]
    assert_refused(await store.commit([*stale, append(key(), records(2), epoch=2)]), Conflict, None, Conflict)
    assert (await store.get_saga(key())).head.sequence == 1
    await written(store, append(key(), records(2), epoch=2), append(key(), records(3), epoch=3))
    assert_refused(await store.commit([append(key(), records(3), epoch=2)]), Conflict)  # though it is there as it is
    assert_refused(await store.commit([start(key(), epoch=1)]), AlreadyExists)
    assert (await store.get_saga(key())).head.epoch == 3


async def test_an_empty_batch(store: Store) -> None:
    assert await store.commit([]) == []


async def test_a_batch_of_many_sagas(store: Store) -> None:
    appends = [start(key(f"s{number}"), birth(labels={"n": str(number)})) for number in range(777)]
    await written(store, *appends)
    await written(store, *(append(one.key, records(2, 3)) for one in appends))
    rows = await store.list_unfinished(None, 1_000)
    assert {row.key.saga_id: row.head.sequence for row in rows} == {f"s{number}": 4 for number in range(777)}
    assert (await store.get_saga(key("s500"))).birth.labels == {"n": "500"}


async def test_due_sagas_come_by_time_and_key_in_pages(store: Store) -> None:
    times = {("a", "z"): 10, ("b", "a"): 10, ("a", "m"): 10, ("a", "late"): 30, ("a", "first"): 5}
    await written(store, *(start(SagaKey(*name), due=time) for name, time in times.items()), start(key("never")))
    assert await all_due(store, until=20) == ["first", "m", "z", "a"]
    assert await all_due(store, until=30) == ["first", "m", "z", "a", "late"]
    await written(store, append(SagaKey("a", "m"), records(2), due=7), append(SagaKey("a", "z"), records(2)))
    assert await all_due(store, until=20) == ["first", "m", "a"]


async def test_unfinished_sagas_come_by_key_in_pages(store: Store) -> None:
    names = [("b", "1"), ("a", "2"), ("a", "1"), ("c", "0"), ("a", "3")]
    await written(store, *(start(SagaKey(*name)) for name in names))
    await written(store, append(SagaKey("a", "2"), records(2), status=SagaStatus.FAILED))
    await written(store, append(SagaKey("a", "3"), records(2), status=SagaStatus.STUCK))
    found: list[SagaKey] = []
    while page := await store.list_unfinished(found[-1] if found else None, 2):
        found += [saga.key for saga in page]
    assert found == [SagaKey("a", "1"), SagaKey("a", "3"), SagaKey("b", "1"), SagaKey("c", "0")]


@pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)
async def test_i25_the_epoch_only_grows_also_when_opened_again(store: Store) -> None:
    assert [(await store.own()).epoch_of(key()) for _ in range(2)] == [1, 2]
    await store.close()
    await store.open()
    assert (await store.own()).epoch_of(key()) == 3


async def test_i25_an_incarnation_is_above_all_epochs_that_a_backup_may_not_know(store: Store) -> None:
    second = await store.begin_incarnation(NOW)
    assert incarnation_of(second) == NOW // SECOND_US
    assert await store.begin_incarnation(NOW) == second + EPOCHS  # the clock stood still
    later = await store.begin_incarnation(NOW + 90 * SECOND_US)
    assert incarnation_of(later) == incarnation_of(second) + 90
    if not isinstance(store, PostgresStore):  # where owners claim partitions, which has tests of its own
        assert (await store.own()).epoch_of(key()) == later + 1
        assert incarnation_of(later + 1) == incarnation_of(later)


async def test_a_closed_store_is_unavailable_and_keeps_all(store: Store) -> None:
    await written(store, start(key()))
    await store.close()
    await store.close()
    for call in (store.commit([start(key("two"))]), store.get_saga(key()), store.check(), store.list_participants()):
        with pytest.raises(Unavailable, match="closed"):
            await call
    await store.open()
    await store.check()
    assert await store.read_records(key(), 0, 10) == records(1)
    with pytest.raises(NotFound):
        await store.get_saga(key("two"))


def test_appends_that_cannot_be_meant() -> None:
    good = start(key())
    for wrong in ({"birth": None}, {"records": records(1, 2)}, {"records": [*records(1), *records(3)]}):
        with pytest.raises(AssertionError):
            Append(**{"key": good.key, "records": good.records, "head": good.head, "birth": good.birth, **wrong})


async def all_due(store: Store, until: int) -> list[str]:
    found: list[StoredSaga] = []
    after = None
    while page := await store.list_due(until, after, 2):
        found += page
        assert page[-1].head.due_time is not None
        after = page[-1].head.due_time, page[-1].key
    return [saga.key.saga_id for saga in found]


def assert_refused(outcomes: list[object], *meant: type[Exception] | None) -> None:
    assert [None if outcome is None else type(outcome) for outcome in outcomes] == list(meant)
