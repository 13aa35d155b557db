"""What the simulation and the chaos found in the runner, each as the shortest way there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from amends_server.catalogue import Catalogue
from amends_server.engine.commands import Cancel, Rejected, Unknown
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US, Retry
from amends_server.errors import NotOwned, SagaHalted
from amends_server.hub import Hub
from amends_server.runner.domain import Domain
from amends_server.runner.reader import Reader
from amends_server.service import feed as feed_module
from amends_server.store.leases import Sole
from amends_server.store.protocol import Append, Record, SagaKey, Stale, StoreError
from tests.server.house import PATIENCE_S, House, lapse, step

ONE = SagaKey("default", "one")
HOUR_US = 3600 * SECOND_US


async def test_i21_a_cancel_is_not_refused_for_a_completion_that_is_not_durable(house: House) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.gate.clear()
    house.answer(0)
    await house.until(lambda: house.journal.pending == 1)
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not cancel.done(), "a crash could still undo what the cancel was refused for"
    house.store.gate.set()
    with pytest.raises(Rejected, match="completed"):
        await cancel
    assert await house.status() == "COMPLETED"
    await house.until(lambda: house.runner.active_count == 0)


@pytest.mark.parametrize("epoch", [0, 7])
async def test_i34_a_saga_that_another_one_ran_meanwhile_is_not_called_halted(house: House, epoch: int) -> None:
    """Who runs it now may be of a version that can read what this one cannot; or it was restored, in a later epoch."""
    runner = house.runner
    runner.halts.add(ONE, runner.domain.epoch_of(ONE), ValueError("it says more than this version knows of"))
    runner.adapt()
    with pytest.raises(SagaHalted):
        runner.halts.check(ONE)
    runner.domain.epoch_of = lambda key: epoch  # type: ignore[method-assign]
    runner.adapt()
    runner.halts.check(ONE)


@pytest.mark.parametrize("stale", [False, True])
async def test_i24_not_owned_says_that_nothing_was_done(house: House, stale: bool) -> None:
    """The saga is handed over while a command is being recorded: whoever gave it may give it again elsewhere."""
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.gate.clear()
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    await house.until(lambda: house.journal.pending == 1)
    if stale:
        house.store.commit = _refuse  # type: ignore[method-assign]
    else:
        house.runner.domain.epoch_of = lambda key: 9  # type: ignore[method-assign]
        house.runner.adapt()
        assert house.runner.active_count == 0
        await asyncio.sleep(0)
        assert not cancel.done(), "nobody knows yet"
        house.store.gate.set()
    if stale:
        with pytest.raises(NotOwned):
            await cancel
    else:
        assert (await cancel).state.going_back


async def _refuse(appends: Sequence[Append]) -> list[StoreError | None]:
    return [Stale("Another orchestrator owns it.") for _ in appends]


async def test_i26_a_saga_that_was_read_while_another_one_owned_it_is_read_again(house: House) -> None:
    class Passing(Sole):
        """Owned in epoch 2, then by somebody else, then in epoch 4."""

        epoch = 2

        def epoch_of(self, key: SagaKey) -> int:
            return self.epoch

    async def own() -> Passing:
        return ownership

    async def get_saga(key: SagaKey) -> object:
        row = await read(key)
        ownership.epoch = 4
        return row

    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    ownership, read = Passing(2), house.store.get_saga
    house.store.own, house.store.get_saga = own, get_saga  # type: ignore[method-assign, assignment]
    heir = await House(house.store, house.clock).open()
    await heir.runner.wake(ONE)
    await heir.until(lambda: heir.journal.pending == 0)
    assert (await read(ONE)).head.epoch == 4
    await heir.close()


async def test_i26_what_another_one_writes_while_a_saga_is_read_is_not_in_what_was_read(house: House) -> None:
    """Whoever took a later intent for its own, by the epoch of an earlier row, would send that call a second time."""

    async def get_saga(key: SagaKey) -> object:
        row = await read(key)
        house.answer(0)
        await house.sent(2)
        return row

    entry = await house.register(step("a"), step("b", "a"))
    await house.start(entry)
    await house.sent(1)
    read = house.store.get_saga
    house.store.get_saga = get_saga  # type: ignore[method-assign, assignment]
    row, _, state = await Reader(house.store, Catalogue(house.store)).read(ONE)
    assert state.sequence == row.head.sequence < (await read(ONE)).head.sequence


async def test_i27_a_call_that_was_sent_before_a_saga_was_let_go_of_is_not_sent_again_as_if_it_were_new(
    house: House,
) -> None:
    """The lease ran out, and was renewed in the same epoch: the first copy may still be on its way."""
    entry = await house.register(step("a", retry=Retry(attempts_max=2, interval_us=0)))
    await house.start(entry)
    await house.sent(1)
    lapse(house)
    house.runner.adapt()
    await house.runner.wake(ONE)
    await house.sent(2)
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]


@pytest.mark.parametrize("begun", [True, False])
async def test_i43_a_saga_of_which_the_store_has_less_than_was_acknowledged_is_not_gone_on_with(
    house: House, begun: bool
) -> None:
    """As when a standby takes over that has not got all: what is missing was sent, and may have had its effect."""
    entry = await house.register(step("a"), step("b", "a"), step("c", "b"))
    restore = house.store.back_up()
    await house.start(entry)
    await house.sent(1)
    if begun:
        restore = house.store.back_up()
    house.answer(0)
    await house.sent(2)
    restore()
    house.answer(1)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    await house.runner.mender.mend()
    with pytest.raises(SagaHalted, match="RecordsLost"):
        await house.runner.wake(ONE)
    assert len(house.calls) == 2
    assert not house.runner.mender.broke.is_set()


async def let_go_of_with_a_call_out(house: House) -> None:
    """Start a saga, and have the lease run out and be renewed while its first call is in flight."""
    await house.start(await house.register(step("a", retry=Retry(attempts_max=2, interval_us=0))))
    await house.sent(1)
    lapse(house)


async def take_up_again_and_mend(house: House) -> None:
    """Take the saga up again while the store fails, and mend it until it has called again."""
    await house.runner.wake(ONE)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    await house.runner.mender.mend()
    await house.sent(2)


async def test_i27_what_was_sent_before_a_saga_was_let_go_of_is_not_sent_again_when_that_cannot_be_recorded(
    house: House,
) -> None:
    """The lease ran out and was renewed, and the store failed just then: whose calls are open is not forgotten."""
    await let_go_of_with_a_call_out(house)
    house.store.fails_before = 1
    await take_up_again_and_mend(house)
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]


async def test_i31_what_was_recorded_though_the_store_said_no_is_sent_once_after_a_saga_was_taken_up_again(
    house: House,
) -> None:
    await let_go_of_with_a_call_out(house)
    house.store.fails_after = 1
    await take_up_again_and_mend(house)
    house.answer(1)
    await house.until(lambda: house.runner.active_count == 0)
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]
    assert await house.status() == "COMPLETED"


async def answer_during_a_commit(house: House, call: int) -> None:
    """Answer a call whose outcome is not written before `take_up_again_and_find_more`."""
    house.store.gate.clear()
    house.answer(call)
    await house.until(lambda: house.journal.pending == 1)


async def take_up_again_and_find_more(house: House) -> None:
    """Have the lease run out and be renewed before what is being written is, and mend what comes of it."""
    lapse(house)
    await house.runner.wake(ONE)
    house.store.gate.set()
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    await house.runner.mender.mend()


async def test_i17_a_call_that_was_sent_before_a_saga_was_let_go_of_is_no_new_one_for_what_is_written_since_then(
    house: House,
) -> None:
    """The copy that was let go of had its last word, so the next one found more in the journal than it had read.

    Sent again under the same number, a refusal of the second call would speak for the first one, which may have had
    its effect.
    """
    await house.start(await house.register(step("a", retry=Retry(attempts_max=2, interval_us=0)), step("b")))
    await house.sent(2)
    await answer_during_a_commit(house, 1)
    await take_up_again_and_find_more(house)
    await house.sent(3)
    assert house.calls == [("a", "do", 1), ("b", "do", 1), ("a", "do", 2)]


async def test_i28_a_saga_is_not_let_go_of_for_what_its_last_copy_wrote_too_late(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit took longer than the lease, which was then taken again, in another epoch, by who had had it."""
    commit, last_epoch = house.store.commit, house.runner.domain.epoch_of(ONE)

    async def commit_fenced(appends: Sequence[Append]) -> list[StoreError | None]:
        if any(append.head.epoch == last_epoch for append in appends):
            await house.store.gate.wait()
            return [Stale("Another epoch has begun.") for _ in appends]
        return await commit(appends)

    def next_epoch(ownership: Sole, key: SagaKey) -> int:
        return last_epoch + 1

    await house.start(await house.register(step("a", retry=Retry(attempts_max=2, interval_us=0))))
    await house.sent(1)
    monkeypatch.setattr(house.store, "commit", commit_fenced)
    await answer_during_a_commit(house, 0)
    monkeypatch.setattr(Sole, "epoch_of", next_epoch)
    house.runner.adapt()
    await house.runner.wake(ONE)
    house.store.gate.set()
    await house.sent(2)
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]


def holds_all(domain: Domain, key: SagaKey) -> bool:
    return True


async def test_i28_what_was_held_back_is_not_forgotten_when_a_saga_is_found_further_than_it_was_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be handed over, and stays after all, while the last outcome that was waited for is written."""
    await house.start(await house.register(step("a"), step("b"), step("c", "a")))
    await house.sent(2)
    with monkeypatch.context() as leaving:
        leaving.setattr(Domain, "holds", holds_all)
        house.answer(0)
        await house.until(lambda: house.journal.pending == 0)
        await answer_during_a_commit(house, 1)
    await take_up_again_and_find_more(house)
    await house.sent(3)
    assert house.calls[2:] == [("c", "do", 1)]


async def test_i43_that_a_store_was_restored_is_not_forgotten_when_it_cannot_be_recorded_at_first(house: House) -> None:
    """No call was open in the backup, so that only the epoch tells."""
    later = Retry(attempts_max=2, interval_us=HOUR_US, interval_max_us=HOUR_US)
    await house.start(await house.register(step("a"), step("b", "a", retry=later)))
    for call, verdict in enumerate((None, Unknown(Error("TIMEOUT", "None.")))):
        await house.sent(call + 1)
        house.answer(call, verdict)
    await house.until(lambda: house.runner.active_count == 0)
    await house.store.begin_incarnation(house.clock.now())
    heir = await House(house.store, house.clock).open()
    house.store.fails_before = 1
    await heir.runner.wake(ONE)
    await asyncio.wait_for(heir.runner.mender.broke.wait(), PATIENCE_S)
    await heir.runner.mender.mend()
    await heir.sent(1)
    assert heir.calls == [("a", "do", 2)]
    await heir.close()


async def test_whoever_waits_for_a_saga_of_another_one_does_not_have_its_journal_read_all_the_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def own() -> Sole:
        return Sole(0)

    async def get_saga(key: SagaKey) -> object:
        looks.append(key)
        return await look(key)

    async def read_records(key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        reads.append(key)
        return await read(key, after_sequence, limit)

    monkeypatch.setattr(feed_module, "POLL_S", 0.01)
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    looks, reads, look, read = list[SagaKey](), list[SagaKey](), house.store.get_saga, house.store.read_records
    house.store.own, house.store.get_saga, house.store.read_records = own, get_saga, read_records  # type: ignore[method-assign, assignment]
    other = await House(house.store, house.clock).open()
    feed = feed_module.Feed(house.store, Reader(house.store, other.catalogue), other.runner, Hub())
    waiting = asyncio.create_task(feed.settled(ONE))
    await house.until(lambda: len(looks) > 3)
    assert reads == []
    house.answer(0)
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).state.final
    await other.close()


async def test_i37_of_a_saga_that_another_one_may_run_the_store_is_asked_and_not_what_is_in_memory(
    house: House,
) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    heir = await House(house.store, house.clock).open()
    await heir.runner.command(ONE, Cancel("changed my mind", "me"))
    assert not (await house.runner.read(ONE)).state.going_back, "it knows of no other"
    house.runner.domain.epoch_of = lambda key: 0  # type: ignore[method-assign]
    assert (await house.runner.read(ONE)).state.going_back
    await heir.close()


async def test_i37_of_a_saga_that_is_being_written_the_store_is_asked_for_others_may_have_read_it(house: House) -> None:
    """Who watches it at another orchestrator can be told of its end before the one that has written it."""
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.said.clear()
    house.answer(0)
    reader = Reader(house.store, house.catalogue)

    async def final() -> bool:
        return (await reader.read(ONE))[2].final

    await house.until(final)
    shown = await house.status()
    house.store.said.set()
    assert shown == "COMPLETED"


async def test_i37_of_a_saga_that_nobody_knows_to_be_written_the_store_is_asked(house: House) -> None:
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    house.store.fails_after = 1
    house.answer(0)
    await house.runner.mender.broke.wait()
    assert await house.status() == "COMPLETED"
