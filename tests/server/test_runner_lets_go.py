"""The runner where it must not go on: what is not durable yet, what another one may own, and what is on its way out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from amends_server.engine.commands import Cancel, Pause, Rejected, Resolve
from amends_server.engine.commands import Retry as Retry_
from amends_server.engine.events import Resolution, SagaStarted
from amends_server.engine.graph import Graph
from amends_server.engine.policy import SECOND_US, Retry
from amends_server.engine.state import State
from amends_server.errors import NotOwned, SagaHalted
from amends_server.runner import runner
from amends_server.store.leases import Sole
from amends_server.store.protocol import Append, SagaKey, Stale, StoreError, Unavailable
from tests.server.house import PATIENCE_S, HandClock, House, MoodyStore, lapse, no, step

ONE = SagaKey("default", "one")
AGAIN = Retry(attempts_max=3, interval_us=0)


async def turn() -> None:
    """Let everything happen that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def in_status(house: House, status: str) -> bool:
    return await house.status() == status


def watched(house: House) -> list[State | None]:
    """Wait for the end of the saga as a session does; return what is told of it."""
    told: list[State | None] = []
    house.hub.wait(ONE, told.append)
    return told


async def resting(house: House) -> None:
    """Leave a saga in the store that is stuck on its way back."""
    await house.start(await house.register(step("a"), step("b", "a")))
    for call, verdict in enumerate((None, no(), no())):
        await house.sent(call + 1)
        house.answer(call, verdict)
    await house.until(lambda: house.runner.active_count == 0)


async def test_i10_whoever_waits_for_a_decision_is_told_by_its_own_commit_and_by_none_before(house: House) -> None:
    await house.start(await house.register(step("a"), step("b")))
    await house.sent(2)
    house.store.gate.clear()
    house.answer(0)
    await turn()  # the commit of the outcome waits, and what comes now is in the next one
    cancel = asyncio.create_task(house.runner.command(ONE, Cancel("changed my mind", "me")))
    await house.until(lambda: house.journal.pending == 2)
    house.store.let_one()

    async def recorded() -> bool:
        return (await house.runner.read(ONE)).state.step("a").status.name == "SUCCEEDED"

    await house.until(recorded)
    await turn()
    assert not cancel.done(), "a crash would undo what it was told"
    house.store.gate.set()
    assert (await asyncio.wait_for(cancel, PATIENCE_S)).state.going_back


async def test_i24_a_saga_that_another_one_has_written_is_let_go_of_and_not_mended(house: House) -> None:
    """The mender would read what the other one does, and go on with it."""

    async def refuse(appends: Sequence[Append]) -> list[StoreError | None]:
        return [Stale("Another orchestrator owns it.") for _ in appends]

    await house.start(await house.register(step("a"), step("b", "a")))
    await house.sent(1)
    house.store.commit = refuse  # type: ignore[method-assign]
    house.answer(0)
    told = watched(house)
    await house.until(lambda: house.journal.pending == 0)
    assert house.runner.active_count == 0
    assert not house.runner.mender.broke.is_set()
    assert told == [None], "who waits for its end has to ask the other one"


async def test_i26_a_saga_that_broke_is_not_mended_by_who_does_not_own_it_any_more(house: House) -> None:
    """The intent was recorded though the store said no, and by now it may be the next owner who acts on it."""
    await house.start(await house.register(step("a"), step("b", "a")))
    await house.sent(1)
    house.store.fails_after = 1
    house.answer(0)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    house.runner.domain.epoch_of = lambda key: 0  # type: ignore[method-assign]
    await house.runner.mender.mend()
    await turn()
    assert house.calls == [("a", "do", 1)]
    assert house.runner.active_count == 0


@pytest.mark.parametrize("recorded", [False, True])
async def test_i35_the_end_of_a_saga_is_told_once_it_is_known_to_be_durable(house: House, recorded: bool) -> None:
    await house.start(await house.register(step("a")))
    await house.sent(1)
    told = watched(house)
    house.store.fails_before, house.store.fails_after = int(not recorded), int(recorded)
    house.answer(0)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    assert told == [], "a crash would undo what it was told"
    await house.runner.mender.mend()
    await house.until(lambda: len(told) == 1)
    assert told[0] is not None
    assert told[0].status.name == "COMPLETED"
    await house.until(lambda: house.runner.active_count == 0)


async def test_i34_whoever_waits_for_the_end_of_a_saga_that_is_halted_is_told_that_there_is_none(house: House) -> None:
    def fail(*order: object) -> None:
        raise ValueError("a bug")

    await house.start(await house.register(step("a"), step("b", "a")))
    await house.sent(1)
    told = watched(house)
    house.runner._send_call = fail
    house.answer(0)
    await house.until(lambda: len(told) == 1)
    assert told == [None]
    with pytest.raises(SagaHalted):
        await house.runner.command(ONE, Pause("wait", "me"))


async def test_i27_an_answer_to_a_copy_that_was_let_go_of_leaves_the_next_one_alone(house: House) -> None:
    await house.start(await house.register(step("a", retry=AGAIN)))
    await house.sent(1)
    lapse(house)
    await house.runner.wake(ONE)
    await house.sent(2)
    house.answer(0, no())
    await turn()
    assert house.runner.halts.why == {}
    assert house.runner.active_count == 1
    house.answer(1)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"


async def test_i27_a_start_that_was_mended_is_let_go_of_like_any_other(house: House) -> None:
    """Its call was not sent when it was mended, and was when it is taken up again in the same epoch."""
    house.store.fails_after = 1
    with pytest.raises(Unavailable):
        await house.start(await house.register(step("a", retry=AGAIN)))
    await house.runner.mender.mend()
    await house.sent(1)
    lapse(house)
    await house.runner.wake(ONE)
    await house.sent(2)
    assert house.calls == [("a", "do", 1), ("a", "do", 2)]


async def test_i27_a_saga_that_broke_and_was_let_go_of_is_not_mended_beside_its_next_copy(house: House) -> None:
    await house.start(await house.register(step("a"), step("b", "a", retry=AGAIN)))
    await house.sent(1)
    house.store.fails_after = 1
    house.answer(0)
    await asyncio.wait_for(house.runner.mender.broke.wait(), PATIENCE_S)
    lapse(house)
    await house.runner.wake(ONE)
    await house.sent(2)
    await house.runner.mender.mend()
    await turn()
    assert house.calls == [("a", "do", 1), ("b", "do", 2)]
    assert not house.runner.mender.broke.is_set()


async def test_i28_a_saga_that_breaks_again_while_it_is_mended_is_mended_again(house: House) -> None:
    """Another process began it; this one is asked for the same start, and the store fails each time that it writes."""
    entry = await house.register(step("a", retry=AGAIN))
    await house.start(entry)
    await house.sent(1)
    heir = await House(house.store, house.clock).open()
    house.store.fails_before = 1
    with pytest.raises(Unavailable):
        await heir.start(entry)
    house.store.fails_before = 1
    await heir.runner.mender.mend()
    await heir.until(lambda: heir.journal.pending == 0)
    await turn()
    assert heir.calls == []
    await heir.runner.mender.mend()
    await heir.sent(1)
    assert heir.calls == [("a", "do", 2)]
    await heir.close()


async def test_i28_one_saga_that_cannot_be_read_keeps_no_other_from_being_mended(house: House) -> None:
    entry = await house.register(step("a"))
    for saga_id in ("one", "two"):
        await house.start(entry, saga_id)
    await house.sent(2)
    house.store.down = True
    for call in range(2):
        house.answer(call)
    await house.until(lambda: house.journal.pending == 0)
    house.store.down = False
    house.store.unreadable.add(ONE)
    with pytest.raises(Unavailable):
        await house.runner.mender.mend()
    await house.until(lambda: house.runner.active_count == 1)
    assert await house.status("two") == "COMPLETED"
    house.store.unreadable.clear()
    await house.runner.mender.mend()
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"


async def test_whoever_gives_up_on_a_saga_that_is_being_read_does_not_speak_for_the_others(house: House) -> None:
    await resting(house)
    impatient, patient = (asyncio.create_task(house.runner.command(ONE, Retry_("again", "me"))) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await asyncio.wait_for(patient, PATIENCE_S)).state.going_back
    assert impatient.cancelled()


async def test_i27_a_saga_that_was_read_for_one_who_gave_up_is_read_again_for_whoever_comes_just_then(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left memory already, though that it was read has not got around."""
    await resting(house)
    released, get_saga = asyncio.get_running_loop().create_future(), house.store.get_saga

    async def get_saga_once_released(key: SagaKey) -> Any:
        await released
        return await get_saga(key)

    monkeypatch.setattr(house.store, "get_saga", get_saga_once_released)
    impatient = asyncio.create_task(house.runner.command(ONE, Retry_("again", "me")))
    await turn()
    impatient.cancel()
    await turn()
    released.set_result(None)
    punctual = asyncio.create_task(house.runner.command(ONE, Retry_("again", "me")))
    assert (await asyncio.wait_for(punctual, PATIENCE_S)).state.going_back


async def test_a_saga_with_a_call_out_stays_in_memory_however_far_its_deadline_is(house: House) -> None:
    await house.start(await house.register(step("a")), deadline_s=86_400)
    await house.sent(1)
    await turn()
    assert house.runner.active_count == 1
    house.answer(0)
    await house.until(lambda: house.runner.active_count == 0)
    assert await house.status() == "COMPLETED"


async def test_i22_a_deadline_is_met_in_memory_that_is_full_where_no_scan_gets_any_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scan waits for room, which there is when the call has ended, and that may last longer."""
    monkeypatch.setattr(runner, "KEEP_CROWDED_S", 0)
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    key, birth, entry, started = house.wish(await house.register(step("a")))
    await house.runner.start(key, birth, entry, replace(started, deadline=started.time + 50_000))
    await house.sent(1)
    house.clock.time += SECOND_US
    await house.until(lambda: in_status(house, "COMPENSATING"))
    house.answer(0)
    await house.sent(2)
    await house.close()


async def test_whoever_waits_for_a_saga_that_rests_is_told_when_another_one_may_own_it(house: House) -> None:
    await resting(house)
    told = watched(house)
    lapse(house)
    assert told == [None]


async def test_i26_calls_on_hold_are_waited_for_until_they_are_recorded_and_no_others_are(house: House) -> None:
    entry = await house.register(step("a"))
    for saga_id in ("one", "two"):
        await house.start(entry, saga_id)
    await house.sent(2)
    house.runner.domain.holds = lambda key: key == ONE  # type: ignore[method-assign]
    settled = asyncio.create_task(house.runner.settle_calls())
    await turn()
    assert not settled.done(), "a call is out"
    house.store.gate.clear()
    house.answer(0)
    await turn()
    also = asyncio.create_task(house.runner.settle_calls())
    await turn()
    assert not any(task.done() for task in (settled, also)), "its outcome could be lost"
    house.store.gate.set()
    await asyncio.wait_for(asyncio.gather(settled, also), PATIENCE_S)
    assert house.runner.active_count == 1


async def test_i26_nothing_is_dispatched_for_a_saga_that_is_about_to_be_handed_over(house: House) -> None:
    class Leaving(Sole):
        leaving = False

        def leaves(self, key: SagaKey) -> bool:
            return self.leaving

    async def own() -> Leaving:
        return ownership

    ownership = Leaving(2)
    house.store.own = own  # type: ignore[method-assign, assignment]
    giver = await House(house.store, house.clock).open()
    await giver.start(await giver.register(step("a"), step("b", "a")))
    await giver.sent(1)
    ownership.leaving = True
    giver.answer(0)
    await giver.until(lambda: giver.runner.active_count == 0)
    assert giver.calls == [("a", "do", 1)]
    ownership.leaving = False
    await giver.runner.wake(ONE)
    await giver.sent(2)
    assert giver.calls == [("a", "do", 1), ("b", "do", 1)]
    await giver.close()


async def test_whoever_waits_for_room_or_for_the_end_of_calls_goes_on_when_sagas_are_let_go_of() -> None:
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    await house.start(await house.register(step("a")))
    await house.sent(1)
    house.runner.domain.hold()
    waiting = [asyncio.create_task(wait()) for wait in (house.runner.places.room, house.runner.settle_calls)]
    await turn()
    assert not any(task.done() for task in waiting)
    lapse(house)
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    await house.close()


async def test_i27_two_commands_on_a_saga_that_rests_have_one_copy_of_it_until_both_are_over(house: House) -> None:
    """The first one to end must not take it away from the other."""
    await resting(house)
    refused = Resolve("nope", Resolution.SKIPPED, None, "", "me")
    outcomes = await asyncio.gather(*(house.runner.command(ONE, refused) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Rejected, Rejected]
    assert house.runner.active_count == 0


async def test_i19_a_command_on_a_saga_that_is_started_again_is_for_the_one_that_there_is(house: House) -> None:
    await resting(house)
    house.store.gate.clear()
    house.clock.time += 1
    again = asyncio.create_task(house.start(await house.register(step("a"), step("b", "a"))))
    await house.until(lambda: house.journal.pending == 1)
    retried = asyncio.create_task(house.runner.command(ONE, Retry_("again", "me")))
    await turn()
    house.store.gate.set()
    _, created = await again
    assert not created
    assert (await asyncio.wait_for(retried, PATIENCE_S)).state.going_back
    await house.sent(4)
    assert house.calls[3:] == [("a", "undo", 2)]


async def test_i27_a_saga_that_is_on_its_way_into_memory_is_not_begun_there_a_second_time(house: House) -> None:
    await resting(house)
    told: list[State | Exception] = []
    wish = house.wish(await house.register(step("a"), step("b", "a")))
    waking = asyncio.create_task(house.runner.wake(ONE))
    await asyncio.sleep(0)
    assert not house.runner.begin(*wish, told.append)
    await waking


async def test_i24_a_start_whose_lease_runs_out_as_it_is_begun_is_told_that_nothing_was_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await house.register(step("a"))

    def run_out(graph: Graph, started: SagaStarted) -> None:
        monkeypatch.setattr(Sole, "epoch_of", lambda ownership, key: 0)

    monkeypatch.setattr(house.runner.places, "refusal", run_out)
    with pytest.raises(NotOwned):
        await house.start(entry)


async def test_i42_nothing_is_begun_where_memory_is_full() -> None:
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    entry = await house.register(step("a"))
    await house.start(entry)
    told: list[State | Exception] = []
    assert not house.runner.begin(*house.wish(entry, "two"), told.append)
    await house.close()


async def test_i41_no_saga_that_is_gone_counts_at_its_participant() -> None:
    """Or its participant would be taken for one that hangs, and no saga of it be started any more."""
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    entry = await house.register(step("a"))
    await house.start(entry)
    await house.sent(1)
    lapse(house)
    await house.start(entry, "two")
    await house.sent(2)
    await house.close()
