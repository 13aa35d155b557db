"""Room in memory: a participant that hangs has its part of it, and the sagas of others get on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from amends_server.catalogue import Entry
from amends_server.config import PUT_OFF_S, PUT_OFFS_PER_S
from amends_server.engine.commands import Cancel, NotSent
from amends_server.engine.policy import SECOND_US
from amends_server.errors import ParticipantCrowded
from amends_server.runner import places
from amends_server.runner.active import NOT_WANTED
from amends_server.store.protocol import SagaKey
from tests.server.house import HandClock, House, MoodyStore, no, step

PLACES = 12
NAMES = ("hangs", "answers", "third")
MANY, TOO_MANY = 11, 3
"""With 8 of 12 sagas at one participant, these are twice as many as places are free."""


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(places, "LOOK_S", 1e-9)  # whoever has not answered yet does not answer
    house = await House(MoodyStore(), HandClock(), active_max=PLACES).open()
    yield house
    await house.close()


def key(saga_id: str) -> SagaKey:
    return SagaKey("default", saga_id)


async def start_all(house: House, entry: Entry, name: str) -> list[str]:
    """Start sagas until one is refused; return the names of the others."""
    begun: list[str] = []
    while True:
        try:
            await house.start(entry, f"{name}{len(begun)}")
        except ParticipantCrowded:
            return begun
        begun.append(f"{name}{len(begun)}")


async def bring_to_slow(house: House, *steps: object) -> None:
    """Have `MANY` sagas wait for `slow` in their second step, which is `TOO_MANY` more than may."""
    entry = await house.register(step("one"), *steps)
    for number in range(MANY):
        sent = len(house.calls)
        await house.start(entry, f"s{number}")
        await house.sent(sent + 1)
        house.answer(sent)
        await house.sent(sent + len(steps) + 1)


def put_off(house: House, calls: list[int]) -> list[int]:
    """Ask of each of these calls what is in its way, tell that, and return those of which there was something."""
    found: list[int] = []
    for call in calls:
        if (obstacle := house.obstacles[call]()) is not None:
            house.answer(call, obstacle)
            found.append(call)
    return found


async def test_i41_starts_that_begin_with_a_participant_that_hangs_are_refused_and_others_are_not(house: House) -> None:
    slow = await house.register(step("a", participant="slow"))
    begun = await start_all(house, slow, "slow")
    assert len(begun) == PLACES / 2
    with pytest.raises(ParticipantCrowded, match="6 sagas wait for `slow` already") as refused:
        await house.start(slow, "more")
    assert refused.value.metadata == {"participant": "slow", "limit": "6"}
    _, created = await house.start(slow, "slow0")
    assert not created  # it was started before, and whoever repeats that is told so (I19)
    quick = await house.register(step("b"))
    for number in range(2 * PLACES):
        await house.start(quick, f"quick{number}")
        await house.sent(len(begun) + number + 1)
        house.answer(len(begun) + number)
        await house.until(lambda: house.runner.active_count == len(begun))
    for call in range(len(begun)):
        house.answer(call)
    await house.until(lambda: house.runner.active_count == 0)
    assert await start_all(house, slow, "again") != []


async def test_i41_several_that_hang_leave_room_for_another(house: House) -> None:
    for name in ("one", "two", "three"):
        assert await start_all(house, await house.register(step("a", participant=name)), name) != []
    stuck, quick = len(house.calls), await house.register(step("b"))
    assert house.runner.active_count == stuck < PLACES
    for number in range(PLACES):
        await house.start(quick, f"quick{number}")
        await house.sent(stuck + number + 1)
        house.answer(stuck + number)
        await house.until(lambda: house.runner.active_count == stuck)


async def test_calls_of_too_many_sagas_are_put_off_and_made_later_and_were_no_attempts(house: House) -> None:
    await bring_to_slow(house, step("two", "one", participant="slow"))
    calls = [call for call, (name, _, _) in enumerate(house.calls) if name == "two"]
    late = put_off(house, calls)
    assert late == calls[:TOO_MANY]
    await house.until(lambda: house.runner.active_count == MANY - TOO_MANY)
    await house.runner.wake(key("s0"))
    assert house.calls[-1] == ("two", "do", 1), "it was made before it was due"
    for call in calls[TOO_MANY:]:
        house.answer(call)
    await house.until(lambda: house.runner.active_count == 0)
    house.clock.time += (PUT_OFF_S + 1) * SECOND_US
    await house.keeper._sweep()
    await house.until(
        lambda: house.calls[-TOO_MANY:] == [("two", "do", 2)] * TOO_MANY
    )  # though their steps may be tried once only
    for call in range(TOO_MANY):
        house.answer(len(house.calls) - TOO_MANY + call)
    await house.until(lambda: house.runner.active_count == 0)
    assert {await house.status(f"s{number}") for number in range(MANY)} == {"COMPLETED"}
    assert not house.runner.places._queues, "somebody is counted who is gone"


async def test_i40_those_that_were_put_off_come_back_one_after_another(house: House) -> None:
    await bring_to_slow(house, step("two", "one", participant="slow"))
    returns: list[float] = []
    for obstacle in house.obstacles[1::2]:
        if obstacle() is not None:
            returns.append(house.runner.places._last_return_s)
    assert len(returns) == TOO_MANY
    assert all(later - sooner >= 0.99 / PUT_OFFS_PER_S for sooner, later in pairwise(returns))


async def test_a_saga_is_put_off_with_all_of_its_calls_that_were_not_sent(house: House) -> None:
    both = (step("left", "one", participant="slow"), step("right", "one", participant="slow"))
    await bring_to_slow(house, *both)
    assert put_off(house, [1, 2]) == [1, 2]
    await house.until(lambda: house.runner.active_count == MANY - 1)
    assert sum(queue.sagas for queue in house.runner.places._queues.values()) == MANY - 1


async def test_a_saga_that_was_put_off_can_be_cancelled_and_owes_nothing_to_whom_it_did_not_call(house: House) -> None:
    await bring_to_slow(house, step("two", "one", participant="slow"))
    put_off(house, [1])
    await house.until(lambda: house.runner.active_count == MANY - 1)
    sent = len(house.calls)
    await house.runner.command(key("s0"), Cancel("", "me"))
    assert house.calls[sent:] == [("one", "undo", 1)]
    house.answer(sent)
    await house.until(lambda: house.runner.active_count == MANY - 1)
    assert await house.status("s0") == "COMPENSATED"


async def test_compensations_are_put_off_and_made_later(house: House) -> None:
    entry = await house.register(step("a", participant="slow"), step("b", "a"))
    for number in range(6):
        sent = len(house.calls)
        await house.start(entry, f"s{number}")
        await house.sent(sent + 1)
        house.answer(sent)
        await house.sent(sent + 2)
        house.answer(sent + 1, no())
        await house.sent(sent + 3)
    assert house.calls[2::3] == [("a", "undo", 1)] * 6
    for name in ("other", "another"):
        await start_all(house, await house.register(step("c", participant=name)), name)
    assert (put_off(house, [2]) or put_off(house, [2])) == [2]  # at the first look its answers have just come
    await house.until(lambda: house.runner.places.get(key("s0")) is None)
    house.clock.time += (PUT_OFF_S + 1) * SECOND_US
    await house.keeper._sweep()
    assert house.calls[-1] == ("a", "undo", 2)
    house.answer(len(house.calls) - 1)
    await house.until(lambda: house.runner.places.get(key("s0")) is None)
    assert await house.status("s0") == "COMPENSATED"


async def test_each_participant_has_a_place_of_its_own_so_that_nothing_stands_still() -> None:
    house = await House(MoodyStore(), HandClock(), active_max=1).open()
    await house.start(await house.register(step("a")))
    await house.sent(1)
    assert house.obstacles[0]() is None
    await house.close()


async def test_what_is_not_wanted_any_more_is_not_put_off(house: House) -> None:
    await bring_to_slow(house, step("two", "one", participant="slow"))
    house.runner.domain.hold()
    assert [obstacle() for obstacle in house.obstacles[1::2]] == [NotSent(NOT_WANTED)] * MANY


async def test_i41_nobody_is_put_off_for_one_who_has_more_sagas_waiting(house: House) -> None:
    for name in NAMES:
        await start_all(house, await house.register(step("a", participant=name)), name)
    of = {name: [i for i, order in enumerate(house.orders) if order.node.step.participant == name] for name in NAMES}
    assert [len(of[name]) for name in NAMES] == [6, 3, 2]  # three are more than twice the one place that is free
    assert put_off(house, of["answers"] + of["third"]) == []
    assert put_off(house, of["hangs"]) == of["hangs"][:2]


def test_i41_a_participant_that_answers_fast_enough_may_have_any_number_of_sagas_waiting() -> None:
    queue = places.Queue(since_s=0.0, sagas=100, answers=20)
    assert queue.moves(1.0), "all will be through in five seconds"
    queue.answers = 5
    assert queue.moves(1.5), "as fast as it was at the last look"
    assert not queue.moves(2.0), "half of them would still wait in ten seconds"
    assert not queue.moves(3.5), "no answer came"


def test_i41_a_participant_that_is_new_is_known_by_its_first_answers() -> None:
    queue = places.Queue(since_s=0.0, sagas=100)
    assert not queue.moves(0.5), "no answer came yet"
    queue.answers = 10
    assert queue.moves(0.5), "all will be through in five seconds"
