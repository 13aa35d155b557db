"""The runner where it is hard: commits that fail or are late, repeated starts, bugs, restarts, and the way out."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from amends_server.engine.commands import Cancel, Pause, Rejected, Resolve, Resume, Succeeded, Unknown
from amends_server.engine.commands import Retry as Retry_
from amends_server.engine.data import making
from amends_server.engine.events import Resolution
from amends_server.engine.payload import Error, Json
from amends_server.engine.policy import SECOND_US, Backoff, Retry
from amends_server.errors import Overloaded, SagaHalted
from amends_server.runner import keeper as keeper_module
from amends_server.store.protocol import NotFound, Record, SagaKey, Unavailable, Undefined
from amends_server.store.sqlite import SqliteStore
from tests.server.house import PATIENCE_S, HandClock, House, MoodyStore, no, step

ONE = SagaKey("default", "one")
TWICE = Retry(
    attempts_max=2, interval_us=600 * SECOND_US, interval_max_us=600 * SECOND_US, backoff=Backoff.FIXED, jitter=0
)


async def successor(house: House) -> House:
    """Another process on the same store; the first one is never heard of again."""
    return await House(house.store, house.clock).open()


async def finish(house: House, first_call: int, count: int) -> None:
    for call in range(first_call, first_call + count):
        await house.sent(call + 1)
        house.answer(call)


async def test_nothing_is_sent_and_nobody_is_answered_before_the_intent_is_durable(house: House) -> None:
    entry = await house.register(step("a"))
    house.store.gate.clear()
    start = asyncio.create_task(house.start(entry))
    await house.until(lambda: house.journal.pending == 1)
    assert house.calls == []
    assert not start.done()
    house.store.gate.set()
    view, created = await start
    assert created
    assert view.state.status.name == "RUNNING"
    assert house.calls == [("a", "do", 1)]


async def test_a_step_whose_sibling_answers_during_a_commit_is_not_sent_again(house: House) -> None:
    entry = await house.register(step("a"), step("b"))
    await house.start(entry)
    await house.sent(2)
    house.store.gate.clear()
    house.answer(0)
    house.answer(1)
    house.store.gate.set()
    await house.until(lambda: house.runner.active_count == 0)
    assert house.calls == [("a", "do", 1), ("b", "do", 1)]
    assert await house.status() == "COMPLETED"


async def test_i20_a_start_whose_definition_is_removed_meanwhile_is_refused_and_leaves_nothing(house: House) -> None:
    entry, other = await house.register(step("a")), await house.register(step("b"))
    house.store.gate.clear()
    before = asyncio.create_task(house.start(other, "before"))
    await house.until(lambda: house.journal.pending == 1)
    await asyncio.sleep(0)  # the commit of `before` has begun
    start = asyncio.create_task(house.start(entry))
    await house.until(lambda: house.journal.pending == 2)
    await house.catalogue.delete(entry.stored)
    house.store.gate.set()
    await before
    with pytest.raises(Undefined):
        await start
    with pytest.raises(NotFound):
        await house.runner.read(ONE)
    _, created = await house.start(await house.register(step("a")))  # at once: nothing is left to be mended
    assert created


async def test_i34_a_saga_whose_definition_is_lost_is_halted_and_not_taken_for_none(house: House) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    del house.store._definitions["default", entry.stored.digest]  # what no version of ours does
    after = await successor(house)
    with pytest.raises(SagaHalted):
        await after.runner.read(ONE)
    with pytest.raises(SagaHalted):
        await after.runner.wake(ONE)
    assert list(after.runner.halts.why) == [ONE]
    await after.close()


async def test_i42_an_outcome_that_no_store_can_hold_halts_its_saga_and_no_other(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "amends.db")
    house = await House(store, HandClock()).open()  # type: ignore[arg-type]
    await store._write(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000))  # stands for a gigabyte
    entry = await house.register(step("a"))
    for name in ("one", "two", "three"):
        await house.start(entry, name)
    await house.sent(3)
    for call, size in enumerate((10, 60_000, 10)):
        house.answer(call, Succeeded(Json(f'"{"x" * size}"')))
    await house.until(lambda: house.runner.active_count == 0)
    assert [await house.status(name) for name in ("one", "two", "three")] == ["COMPLETED", "RUNNING", "COMPLETED"]
    assert list(house.runner.halts.why) == [SagaKey("default", "two")]
    await house.close()
    await store.close()


async def test_i3_a_cancel_that_is_durable_with_a_dispatch_keeps_it_from_being_sent(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.store.gate.clear()
    house.answer(0)  # the intent to dispatch b goes into the queue
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    await house.until(lambda: house.journal.pending == 2)
    house.store.gate.set()
    await cancel
    await house.sent(2)
    assert house.calls == [("a", "do", 1), ("a", "undo", 1)]
    house.answer(1)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPENSATED"


async def test_i35_an_outcome_that_could_not_be_recorded_is_kept_and_the_call_not_repeated(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.store.down = True
    house.answer(0)
    await house.runner.mender.broke.wait()
    with pytest.raises(Unavailable):
        await house.runner.mender.mend()
    with pytest.raises(Unavailable):
        await house.runner.command(ONE, Cancel("", "me"))
    house.store.down = False
    await house.runner.mender.mend()
    await house.sent(2)
    assert house.calls == [("a", "do", 1), ("b", "do", 1)]
    house.answer(1)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"


async def test_i31_an_outcome_whose_commit_was_unknown_is_recorded_once(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.store.fails_after = 1
    house.answer(0)
    await house.runner.mender.broke.wait()
    await house.runner.mender.mend()
    await finish(house, 1, 1)
    await house.until(lambda: house.runner.active_count == 0)
    assert house.calls == [("a", "do", 1), ("b", "do", 1)]
    events = [record.kind for record in await house.store.read_records(ONE, 0, 100)]
    assert events.count("step_succeeded") == 2
    assert "late_reply_recorded" not in events


async def test_a_reply_that_comes_while_the_saga_is_broken_is_recorded_after_it_is_mended(house: House) -> None:
    entry = await house.register(step("a"), step("b"))
    await house.start(entry)
    await house.sent(2)
    house.store.fails_before = 1
    house.answer(0)
    await house.runner.mender.broke.wait()
    house.answer(1)
    await house.runner.mender.mend()
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"
    assert len(house.calls) == 2


async def test_a_start_that_could_not_be_recorded_leaves_nothing(house: House) -> None:
    entry = await house.register(step("a"))
    house.store.fails_before = 1
    with pytest.raises(Unavailable):
        await house.start(entry)
    await house.runner.mender.mend()
    assert house.runner.active_count == 0
    assert house.calls == []
    _, created = await house.start(entry)
    assert created


async def test_a_start_whose_commit_was_unknown_goes_on_without_its_client(house: House) -> None:
    entry = await house.register(step("a"))
    house.store.fails_after = 1
    with pytest.raises(Unavailable):
        await house.start(entry)
    await house.runner.mender.mend()
    await finish(house, 0, 1)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"


async def test_a_repeated_start_finds_the_first_one_running_resting_and_ended(house: House) -> None:
    entry = await house.register(step("a"))
    house.store.gate.clear()
    twice = [asyncio.create_task(house.start(entry)) for _ in range(2)]
    await house.until(lambda: house.journal.pending == 1)
    house.store.gate.set()
    assert sorted(created for _, created in [await task for task in twice]) == [False, True]
    await finish(house, 0, 1)
    await house.until(lambda: house.runner.active_count == 0)
    house.clock.time += 1
    view, created = await house.start(entry)
    assert not created
    assert view.state.status.name == "COMPLETED"
    assert len(house.calls) == 1


async def test_a_saga_that_waits_long_leaves_memory_and_comes_back_by_its_due_time(house: House) -> None:
    entry = await house.register(step("a", retry=TWICE))
    await house.start(entry)
    await house.sent(1)
    house.answer(0, Unknown(Error("TIMEOUT", "")))
    await house.until(lambda: house.runner.active_count == 0)
    keeping = asyncio.create_task(house.keeper.run())
    house.clock.time += 599 * SECOND_US
    await house.until(lambda: house.runner.active_count == 1)  # recovery looks at it, and it is nearly due
    assert len(house.calls) == 1
    house.clock.time += SECOND_US
    await house.sent(2)
    house.answer(1)
    await house.until(lambda: house.runner.active_count == 0)
    keeping.cancel()
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]
    assert await house.status() == "COMPLETED"


async def test_i10_after_a_crash_a_call_without_outcome_is_unknown_and_made_again_with_its_key(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a", retry=TWICE))
    await house.start(entry)
    await finish(house, 0, 1)
    await house.sent(2)
    other = await successor(house)
    await other.runner.wake(ONE)
    await other.sent(1)
    assert other.calls == [("b", "do", 2)]
    assert other.orders[0].key == house.orders[1].key
    assert other.orders[0].input == house.orders[1].input
    state = (await other.runner.read(ONE)).state
    assert state.step("b").unproven == 2
    other.answer(0)
    await other.until(lambda: other.runner.active_count == 0)
    await other.close()


async def test_on_the_way_out_outcomes_are_recorded_and_nothing_is_lost_for_the_next_process(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.runner.domain.hold()
    settled = asyncio.create_task(house.runner.settle_calls())
    house.answer(0)
    await settled
    assert house.calls == [("a", "do", 1)]
    other = await successor(house)
    await other.runner.wake(ONE)
    await other.sent(1)
    assert other.calls == [("b", "do", 1)]  # a first attempt: the one before was answered, none was lost
    other.answer(0)
    await other.until(lambda: other.runner.active_count == 0)
    kinds = [record.kind for record in await other.store.read_records(ONE, 0, 100)]
    assert "step_retry_scheduled" not in kinds
    await other.close()


async def test_i34_a_record_that_cannot_be_read_halts_its_saga_and_no_other(house: House) -> None:
    entry = await house.register(step("a", retry=TWICE))
    for saga_id in ("one", "two"):
        await house.start(entry, saga_id)
    await house.sent(2)
    saga = house.store._sagas[ONE]
    saga.records[-1] = Record(saga.records[-1].sequence, saga.records[-1].kind, b"\xff\xff")
    other = await successor(house)
    keeping = asyncio.create_task(other.keeper.run())
    await other.sent(1)
    other.answer(0)
    with pytest.raises(SagaHalted):
        await other.runner.command(ONE, Cancel("", "me"))
    await other.until(lambda: other.runner.active_count == 0)
    assert await other.status("two") == "COMPLETED"
    assert list(other.runner.halts.why) == [ONE]
    keeping.cancel()
    await other.close()


async def test_more_sagas_than_may_run_are_refused_until_one_ends() -> None:
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    entry = await house.register(step("a"))
    await house.start(entry)
    with pytest.raises(Overloaded):
        await house.start(entry, "two")
    await finish(house, 0, 1)
    await house.until(lambda: house.runner.active_count == 0)
    await house.start(entry, "two")
    await house.close()


async def test_i8_a_compensation_that_was_lost_with_its_process_is_never_taken_for_done(house: House) -> None:
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.answer(0, Succeeded(Json('{"id":7}')))
    await house.sent(2)
    house.answer(1, no())
    await house.sent(3)
    assert house.calls[2] == ("a", "undo", 1)
    other = await successor(house)
    await other.runner.wake(ONE)
    assert (await other.runner.read(ONE)).state.status.name == "STUCK"  # its only attempt was lost with the process
    assert other.calls == []
    await other.close()


async def stuck(house: House) -> None:
    """Run a saga until its rollback is stuck, and out of memory."""
    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    house.answer(0)
    await house.sent(2)
    house.answer(1, no())
    await house.sent(3)
    house.answer(2, no())
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "STUCK"


async def test_i6_commands_on_a_saga_that_rests_have_one_copy_of_it_and_send_a_call_once(house: House) -> None:
    await stuck(house)
    await house.runner.command(ONE, Retry_("again", "me"))
    assert house.runner.active_count == 1
    await house.runner.command(ONE, Pause("wait", "me"))
    await house.runner.command(ONE, Resume("go", "me"))
    assert house.calls[3:] == [("a", "undo", 2)]
    house.answer(3)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPENSATED"


async def test_a_command_that_is_rejected_leaves_no_saga_in_memory(house: House) -> None:
    await stuck(house)
    with pytest.raises(Rejected):
        await house.runner.command(ONE, Resolve("nope", Resolution.SKIPPED, None, "", "me"))
    assert house.runner.active_count == 0


async def test_i28_one_saga_that_cannot_be_read_keeps_no_other_from_recovery(house: House) -> None:
    entry = await house.register(step("a", retry=TWICE))
    for saga_id in ("one", "two", "three"):
        await house.start(entry, saga_id)
    await house.sent(3)
    house.store.unreadable.add(SagaKey("default", "one"))
    other = await successor(house)
    keeping = asyncio.create_task(other.keeper.run())
    await other.sent(2)
    house.store.unreadable.clear()
    await other.sent(3)
    assert len(other.calls) == 3
    keeping.cancel()
    await other.close()


async def test_i40_recovery_takes_no_more_sagas_into_memory_than_may_be_there(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "AT_ONCE_MAX", 2)
    entry = await house.register(step("a", retry=TWICE))
    for number in range(10):
        await house.start(entry, str(number))
    await house.sent(10)
    other = await House(house.store, house.clock, active_max=1).open()
    keeping = asyncio.create_task(other.keeper.run())
    for call in range(10):
        await other.sent(call + 1)
        for _ in range(100):  # in which all would come
            await asyncio.sleep(0)
        assert other.runner.active_count <= 2
        other.answer(call)
    await other.until(lambda: other.runner.active_count == 0)
    keeping.cancel()
    await other.close()


async def test_the_repeat_of_a_known_start_is_answered_when_memory_is_full() -> None:
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    entry = await house.register(step("a", retry=TWICE))
    await house.start(entry)
    await house.sent(1)
    house.answer(0, Unknown(Error("TIMEOUT", "")))
    await house.until(lambda: house.runner.active_count == 0)
    await house.start(entry, "two")
    _, created = await house.start(entry)
    assert not created
    await house.close()


async def test_the_way_out_is_not_held_up_by_outcomes_that_cannot_be_recorded(house: House) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.down = True
    house.runner.domain.hold()
    settled = asyncio.create_task(house.runner.settle_calls())
    await asyncio.sleep(0)
    house.answer(0)
    await asyncio.wait_for(settled, PATIENCE_S)


async def test_i20_of_a_saga_that_is_started_on_the_way_out_only_the_start_is_recorded(house: House) -> None:
    entry = await house.register(step("a"))
    house.runner.domain.hold()
    await house.start(entry)
    assert [record.kind for record in await house.store.read_records(ONE, 0, 100)] == ["saga_started"]
    assert house.calls == []
    found = await house.store.list_due(house.clock.now(), None, 10, None)
    assert [row.key for row in found] == [ONE], "whoever looks for what is due finds it"
    other = await successor(house)
    await other.runner.wake(ONE)
    await other.sent(1)
    other.answer(0)
    await other.until(lambda: other.runner.active_count == 0)
    assert (await other.runner.read(ONE)).state.status.name == "COMPLETED"
    await other.close()


async def test_i42_steps_that_have_to_wait_for_their_turn_get_it_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "AT_ONCE_BYTES_MAX", 3_000)
    monkeypatch.setattr(house.catalogue, "_payload_bytes_max", 1_000)
    entry = await house.register(*(step(f"s{i}", input_template=f'"{"x" * 900}"') for i in range(9)))
    await house.start(entry)
    await house.sent(9)
    assert {name for name, _, _ in house.calls} == {f"s{i}" for i in range(9)}
    for call in range(9):
        house.answer(call)

    async def completed() -> bool:
        return await house.status() == "COMPLETED"

    await house.until(completed)
