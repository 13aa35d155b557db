"""Group C, as far as it is about time: intervals, timeouts and deadlines."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from amends import CauseKind, Event, EventKind, SagaStatus, StepStatus
from amends.v1 import definition_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    UNAVAILABLE,
    Gate,
    InProcess,
    World,
    definition,
    hang,
    refuse,
    step,
    succeed,
)

MS = 0.001
SHORT_S = 0.5
"""Long enough for whatever is to happen before it is over, on a machine that stands still for a moment."""

LATE_S = 5.0
"""Far below what a call may take if nothing is said."""


def intervals_ms(journal: list[Event]) -> list[int]:
    """From the end of each attempt to when the next one is due, as recorded, in whole milliseconds."""
    scheduled = [event.message for event in journal if event.kind is EventKind.STEP_RETRY_SCHEDULED]
    return [
        (event.step_retry_scheduled.due_time.ToMicroseconds() - event.time.ToMicroseconds()) // 1_000
        for event in scheduled
    ]


BACKOFFS = {
    "fixed": (step("one", interval_s=20 * MS, backoff="FIXED", attempts=5), [20, 20, 20, 20]),
    "linear": (step("one", interval_s=10 * MS, backoff="LINEAR", attempts=5), [10, 20, 30, 40]),
    "exponential": (step("one", interval_s=10 * MS, backoff="EXPONENTIAL", attempts=5), [10, 20, 40, 80]),
    "steeper": (step("one", interval_s=5 * MS, backoff="EXPONENTIAL", factor=3, attempts=4), [5, 15, 45]),
    "linear, capped": (
        step("one", interval_s=10 * MS, backoff="LINEAR", interval_max_s=25 * MS, attempts=5),
        [10, 20, 25, 25],
    ),
    "exponential, capped": (
        step("one", interval_s=10 * MS, backoff="EXPONENTIAL", interval_max_s=30 * MS, attempts=5),
        [10, 20, 30, 30],
    ),
}


@pytest.mark.parametrize("what", BACKOFFS)
async def test_c31_intervals_grow_as_the_policy_says(world: World, what: str) -> None:
    one, expected = BACKOFFS[what]
    world.worker.on("one", UNAVAILABLE)
    await world.run(definition("spaced", one))
    journal = await world.journal()
    assert intervals_ms(journal) == expected
    dispatched = [event.time for event in journal if event.kind is EventKind.STEP_DISPATCHED]
    due = [event.message.step_retry_scheduled.due_time for event in journal if event.kind == "step_retry_scheduled"]
    assert all(time >= at.ToDatetime(tzinfo=UTC) for time, at in zip(dispatched[1:], due, strict=True))
    starts = [record.time_s for record in world.ledger.calls("s", "one")]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert all(gap >= wanted * MS for gap, wanted in zip(gaps, expected, strict=True))


async def test_c31_jitter_stays_in_its_band_and_differs_between_sagas(world: World) -> None:
    world.worker.on("one", UNAVAILABLE)
    spread = definition("spread", step("one", interval_s=40 * MS, jitter=0.5, attempts=4))
    await world.client.register(spread)
    handles = [await world.client.start("spread", None, id=f"s{number}") for number in range(10)]
    for handle in handles:
        await world.settled(handle)
    found = [tuple(intervals_ms(await world.journal(handle.id))) for handle in handles]
    assert all(20 <= interval <= 40 for each in found for interval in each)
    assert len(set(found)) == 10, "each saga has intervals of its own"
    assert all(len(set(each)) > 1 for each in found), "so has each attempt"


def error_code(event: Event) -> str:
    assert event.error is not None
    return event.error.code


@OVER_BOTH_LINKS
async def test_c32_a_step_that_takes_too_long_is_given_up_and_tried_again(world: World) -> None:
    world.worker.on("one", hang(effect=True), succeed())
    saga = await world.run(definition("slow", step("one", timeout_s=SHORT_S), "two"))
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("one").attempts == 2
    journal = await world.journal()
    [dispatched, *_] = [event for event in journal if event.kind is EventKind.STEP_DISPATCHED]
    [given_up] = [event for event in journal if event.kind is EventKind.STEP_RETRY_SCHEDULED]
    assert error_code(given_up) == "TIMEOUT"
    assert SHORT_S - 10 * MS <= (given_up.time - dispatched.time).total_seconds() < LATE_S
    first, _ = world.ledger.calls("s", "one")
    expire = first.execute_request.call.expire_time.ToDatetime(tzinfo=UTC)
    assert SHORT_S - 10 * MS <= (expire - dispatched.time).total_seconds() < LATE_S
    assert world.ledger.effects() == ["one", "two"]


@OVER_BOTH_LINKS
async def test_c32_a_step_that_always_takes_too_long_is_unknown_and_undone(world: World) -> None:
    world.worker.on("two", hang(effect=True))
    saga = await world.run(definition("too_slow", "one", step("two", timeout_s=SHORT_S, attempts=2)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    [given_up] = [event for event in await world.journal() if event.kind is EventKind.STEP_GIVEN_UP]
    assert error_code(given_up) == "TIMEOUT"


@pytest.mark.parametrize(
    ("timeout_s", "undo_timeout_s"), [(30, SHORT_S), (SHORT_S, None)], ids=["its own", "the action's"]
)
async def test_c32_a_compensation_has_a_timeout_too(
    world: World, timeout_s: float, undo_timeout_s: float | None
) -> None:
    world.worker.on("two", refuse())
    world.worker.on("undo one", hang(), succeed())
    one = step("one", timeout_s=timeout_s, undo_timeout_s=undo_timeout_s)
    saga = await world.run(definition("slow_undo", one, "two"))
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("one").compensation_attempts == 2
    journal = await world.journal()
    [dispatched, *_] = [event for event in journal if event.kind is EventKind.COMPENSATION_DISPATCHED]
    [given_up] = [event for event in journal if event.kind is EventKind.COMPENSATION_RETRY_SCHEDULED]
    assert error_code(given_up) == "TIMEOUT"
    assert SHORT_S - 10 * MS <= (given_up.time - dispatched.time).total_seconds() < LATE_S


async def test_c32_an_action_with_a_short_timeout_leaves_its_compensation_time(world: World) -> None:
    gate = Gate()
    world.worker.on("one", hang(effect=True))
    world.worker.on("undo one", gate.before())
    one = step("one", timeout_s=0.05, attempts=1, undo_timeout_s=30)
    handle = await world.start(definition("short", one))
    await gate.reached()
    [undo] = world.ledger.calls("s", "undo one")
    call = undo.compensate_request.call
    assert (call.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds() > 20
    gate.release()
    saga = await world.settled(handle)
    assert (saga.status, saga.step("one").compensation_attempts) == (SagaStatus.COMPENSATED, 1)


def turns(journal: list[Event]) -> list[CauseKind]:
    return [event.cause.kind for event in journal if event.cause is not None]


async def test_c33_after_the_deadline_no_new_step_begins_and_the_rollback_runs(world: World) -> None:
    gate, undo = Gate(), Gate()
    world.worker.on("two", gate.after())
    world.worker.on("undo two", UNAVAILABLE, undo.before())
    handle = await world.start(definition("in_time", "one", "two", "three", deadline_s=2 * SHORT_S))
    turned = await world.until("s", "saga_turned_back")
    gate.release()
    await undo.reached()
    during = await handle.status()
    assert during.status is SagaStatus.COMPENSATING
    assert during.message.deadline_time.ToDatetime(tzinfo=UTC) <= turned.time
    undo.release()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    assert saga.cause is not None
    assert saga.cause.kind is CauseKind.DEADLINE
    assert saga.cause.deadline == saga.message.deadline_time.ToDatetime(tzinfo=UTC)
    assert turns(await world.journal()) == [CauseKind.DEADLINE]


async def test_c33_a_deadline_of_the_start_goes_before_that_of_the_definition(world: World) -> None:
    world.worker.on("one", UNAVAILABLE)
    waiting = definition("waiting", step("one", interval_s=60, attempts=9), deadline_s=3_600)
    await world.client.register(waiting)
    handle = await world.client.start("waiting", None, id="s", deadline=2 * SHORT_S)
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.cause is not None
    assert saga.cause.kind is CauseKind.DEADLINE
    assert world.ledger.names() == ["one", "undo one"]


def backing_off(deadline_s: float) -> definition_pb2.Definition:
    return definition("backing_off", "one", step("two", interval_s=3_600, attempts=9), deadline_s=deadline_s)


async def passed(time: datetime | None) -> None:
    """Wait until the clock is past a time; there is nothing else to wait for while the server is down."""
    assert time is not None
    await asyncio.sleep(max(0, (time - datetime.now(UTC)).total_seconds()) + 10 * MS)


async def test_c33_a_deadline_that_passed_while_the_server_was_down_fires_once_on_restart(world: World) -> None:
    world.worker.on("two", UNAVAILABLE)
    handle = await world.start(backing_off(deadline_s=2 * SHORT_S))
    await world.until("s", "step_retry_scheduled", "two")
    deadline = (await handle.status()).message.deadline_time.ToDatetime(tzinfo=UTC)
    await world.orchestrator.stop()
    await passed(deadline)
    assert world.ledger.names() == ["one", "two"]
    await world.orchestrator.start()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.cause is not None
    assert saga.cause.kind is CauseKind.DEADLINE
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert turns(await world.journal()) == [CauseKind.DEADLINE]
    await world.orchestrator.restart()
    assert (await handle.status()).message == saga.message
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]


async def test_c33_a_deadline_that_is_further_off_than_the_sleep_in_memory_fires_all_the_same(world: World) -> None:
    """A saga whose next due time is far off leaves memory; the deadline is found by the scan after a restart too."""
    world.worker.on("two", UNAVAILABLE)
    handle = await world.start(backing_off(deadline_s=6))
    await world.until("s", "step_retry_scheduled", "two")
    await world.orchestrator.restart()
    saga = await world.settled(handle)
    assert (saga.status, saga.cause and saga.cause.kind) == (SagaStatus.COMPENSATED, CauseKind.DEADLINE)
    assert saga.end_time is not None
    late_s = (saga.end_time - saga.message.deadline_time.ToDatetime(tzinfo=UTC)).total_seconds()
    assert 0 <= late_s < 5


async def test_c33_a_deadline_never_fires_on_a_saga_that_has_ended(tmp_path: Path) -> None:
    async with World.opened(tmp_path, InProcess(tmp_path / "amends.db")) as world:
        saga = await world.run(definition("quick", "one", deadline_s=2 * SHORT_S))
        assert saga.status is SagaStatus.COMPLETED
        await passed(saga.message.deadline_time.ToDatetime(tzinfo=UTC))
        await world.orchestrator.restart()
        assert (await world.client.get("s")).message == saga.message
        assert world.ledger.names() == ["one"]


async def test_c33_a_deadline_does_not_turn_a_saga_round_after_its_pivot(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    pivoted = definition("pivoted", step("one", kind="PIVOT"), step("two", kind="RETRIABLE"), deadline_s=2 * SHORT_S)
    handle = await world.start(pivoted)
    await gate.reached()
    await passed((await handle.status()).message.deadline_time.ToDatetime(tzinfo=UTC))
    gate.release()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPLETED
    assert [each.status for each in saga.steps] == [StepStatus.SUCCEEDED] * 2
    assert turns(await world.journal()) == []
