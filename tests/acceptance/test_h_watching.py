"""Group H, case 56: a saga can be watched: live, from anywhere, after its end, and over restarts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing

import grpc
import pytest

from amends import Event, EventKind, SagaHandle, SagaStatus, StepStatus
from amends.v1 import orchestrator_pb2
from amends_server.service import feed
from tests.acceptance.harness import (
    THREE,
    WAIT_S,
    Gate,
    Process,
    Wire,
    World,
    definition,
    refusal_of,
    refuse,
    step,
    succeed,
    system_error,
)

Stream = grpc.aio.UnaryStreamCall[orchestrator_pb2.WatchSagaRequest, orchestrator_pb2.WatchSagaResponse]

COMPLETED_STORY = [
    "saga_started",
    *["step_dispatched", "step_succeeded"] * 3,
    "saga_completed",
]
"""What is told of a saga of three steps."""


async def all_events(saga: SagaHandle[object], after: int = 0) -> list[Event]:
    async with asyncio.timeout(WAIT_S), aclosing(saga.watch(after=after)) as events:
        return [event async for event in events]


async def told_to_the_end(saga: SagaHandle[object]) -> list[Event]:
    """For a watcher that sees several kills: how long each of them takes is bounded where it is waited for."""
    async with aclosing(saga.watch()) as events:
        return [event async for event in events]


async def raw_events(world: World, after: int = 0) -> list[orchestrator_pb2.WatchSagaResponse]:
    """All that one plain stream says, to its end."""
    request = orchestrator_pb2.WatchSagaRequest(saga_id="s", after_sequence=after)
    async with asyncio.timeout(WAIT_S):
        return [response async for response in world.wire.orchestrator.WatchSaga(request, wait_for_ready=True)]


def is_gap_free(events: list[Event]) -> bool:
    return [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_h56_a_running_saga_shows_which_step_it_is_at(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    await gate.reached()
    view = await saga.status()
    assert view.status is SagaStatus.RUNNING
    assert [each.status for each in view.steps] == [StepStatus.SUCCEEDED, StepStatus.RUNNING, StepStatus.PENDING]
    assert view.end_time is None
    [listed] = [each async for each in world.client.list(status=SagaStatus.RUNNING)]
    assert listed.id == "s"
    gate.release()
    assert (await world.settled(saga)).status is SagaStatus.COMPLETED
    assert [each async for each in world.client.list(status=SagaStatus.RUNNING)] == []


async def test_h56_events_come_as_they_happen_in_order_with_times_attempts_and_errors(world: World) -> None:
    gate = Gate()
    world.worker.on("one", succeed({"id": 1}))
    world.worker.on("two", system_error("BUSY", "the queue is full"), gate.before(refuse("NO", "out of stock")))
    saga = await world.start(THREE)
    async with asyncio.timeout(WAIT_S), aclosing(saga.watch()) as stream:
        events = [await anext(stream)]
        while (events[-1].kind, events[-1].step, events[-1].attempt) != (EventKind.STEP_DISPATCHED, "two", 2):
            events.append(await anext(stream))
        await gate.reached()  # all that has happened was told while it went on
        gate.release()
        events += [event async for event in stream]
    assert [(event.kind.value, event.step, event.attempt, str(event.status)) for event in events] == [
        ("saga_started", None, None, "PENDING"),
        ("step_dispatched", "one", 1, "RUNNING"),
        ("step_succeeded", "one", 1, "RUNNING"),
        ("step_dispatched", "two", 1, "RUNNING"),
        ("step_retry_scheduled", "two", 1, "RUNNING"),
        ("step_dispatched", "two", 2, "RUNNING"),
        ("step_refused", "two", 2, "RUNNING"),
        ("saga_turned_back", None, None, "COMPENSATING"),
        ("compensation_dispatched", "two", 1, "COMPENSATING"),
        ("compensation_succeeded", "two", 1, "COMPENSATING"),
        ("compensation_dispatched", "one", 1, "COMPENSATING"),
        ("compensation_succeeded", "one", 1, "COMPENSATING"),
        ("saga_compensated", None, None, "COMPENSATED"),
    ]
    assert is_gap_free(events)
    assert [event.time for event in events] == sorted(event.time for event in events)
    view = await saga.status()
    assert view.create_time == events[0].time
    assert view.end_time == events[-1].time
    errors = {event.kind.value: str(event.error) for event in events if event.error is not None and event.error.code}
    assert errors == {"step_retry_scheduled": "BUSY: the queue is full", "step_refused": "NO: out of stock"}
    assert str(events[7].cause) == "step two: NO: out of stock"


async def test_h56_a_watcher_is_told_of_its_saga_only(world: World) -> None:
    ids = [f"s{i}" for i in range(20)]
    made = {saga: definition(f"d_{saga}", f"{saga}_one", f"{saga}_two") for saga in ids}
    sagas = await asyncio.gather(*(world.start(made[saga], id=saga) for saga in ids))
    stories = await asyncio.gather(*(all_events(saga) for saga in sagas))
    for saga, events in zip(ids, stories, strict=True):
        assert {event.step for event in events} == {None, f"{saga}_one", f"{saga}_two"}
        assert is_gap_free(events)
        assert len(events) == 6


async def test_h56_many_watchers_are_told_the_same(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    watching = [asyncio.create_task(all_events(saga)) for _ in range(20)]
    await gate.reached()
    gate.release()
    stories = await asyncio.gather(*watching)
    assert [event.kind.value for event in stories[0]] == COMPLETED_STORY
    assert all(story == stories[0] for story in stories)


async def test_h56_a_watch_begins_where_the_last_one_ended(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    await gate.reached()
    async with asyncio.timeout(WAIT_S), aclosing(saga.watch()) as stream:
        seen = [await anext(stream) for _ in range(3)]
    gate.release()
    rest = await all_events(saga, after=seen[-1].sequence)
    assert is_gap_free(seen + rest)
    assert [event.kind.value for event in seen + rest] == COMPLETED_STORY
    for after in range(len(COMPLETED_STORY) + 1):
        responses = await raw_events(world, after=after)
        assert [r.event.sequence for r in responses] == list(range(after + 1, len(COMPLETED_STORY) + 1))
        assert [r.event for r in responses] == [event.message for event in (seen + rest)[after:]]


async def test_h56_a_watch_from_nowhere_is_refused(world: World) -> None:
    await world.run(THREE)
    for after, code, reason in (
        (len(COMPLETED_STORY) + 1, grpc.StatusCode.OUT_OF_RANGE, "EVENTS_NOT_KEPT"),
        (-1, grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_events(world, after=after)
        assert (refusal_of(caught.value).code, refusal_of(caught.value).reason) == (code, reason)


async def test_h56_events_are_the_same_after_the_end_and_after_a_restart(killable: World, server: Process) -> None:
    killable.worker.on("three", refuse("NO", "not today"))
    saga = await killable.start(THREE)
    live = await all_events(saga)
    assert live[-1].kind is EventKind.SAGA_COMPENSATED
    view = await saga.status()
    assert await all_events(saga) == live
    await server.kill()
    await server.start()
    assert await all_events(saga) == live
    assert await saga.status() == view


async def test_h56_a_watcher_gets_through_kills_without_gap_or_double(killable: World, server: Process) -> None:
    names = [f"step_{i}" for i in range(4)]
    gates = {name: Gate() for name in names}
    for name in names:
        killable.worker.on(name, gates[name].before(), succeed())
    saga = await killable.start(definition("long", *(step(name, attempts=5) for name in names)))
    watching = asyncio.create_task(told_to_the_end(saga))
    for name in names:
        await gates[name].reached()
        await server.kill()
        await server.start()
    events = await asyncio.wait_for(watching, WAIT_S)
    for gate in gates.values():
        gate.release()
    assert is_gap_free(events)
    assert events == await all_events(saga)
    assert events[-1].kind is EventKind.SAGA_COMPLETED
    retried = [(event.step, event.attempt) for event in events if event.kind is EventKind.STEP_RETRY_SCHEDULED]
    assert retried == [(name, 1) for name in names]


async def test_h56_too_many_watchers_are_refused_and_those_who_await_results_are_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WATCHERS_MAX", 2)
    gate = Gate()
    world.worker.on("two", gate.before())
    saga = await world.start(THREE)
    awaiting = [asyncio.create_task(saga.result()) for _ in range(5)]
    async with aclosing(saga.watch()) as one, aclosing(saga.watch()) as two:
        assert (await anext(one)).sequence == (await anext(two)).sequence == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_events(world)
        refusal = refusal_of(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    gate.release()
    assert len(await asyncio.gather(*awaiting)) == 5
    assert len(await all_events(saga)) == len(COMPLETED_STORY)


async def test_h56_a_stuck_saga_is_watched_on(world: World) -> None:
    world.worker.on("two", refuse("NO"))
    world.worker.on("undo one", system_error(), succeed())
    saga = await world.start(definition("d", step("one", undo_attempts=1), "two"))
    async with asyncio.timeout(WAIT_S), aclosing(saga.watch()) as stream:
        events = [await anext(stream)]
        while events[-1].kind is not EventKind.SAGA_STUCK:
            events.append(await anext(stream))
        assert events[-1].status is SagaStatus.STUCK
        await world.client.retry("s", reason="it is mended")
        events += [event async for event in stream]
    assert is_gap_free(events)
    assert [event.kind.value for event in events][-4:] == [
        "saga_retried",
        "compensation_dispatched",
        "compensation_succeeded",
        "saga_compensated",
    ]
    [retried] = [event for event in events if event.kind is EventKind.SAGA_RETRIED]
    assert retried.reason == "it is mended"
    assert retried.principal


WIDE_BYTES = 100_000
WIDE_STEPS = 120
"""Together twelve megabytes: far more than the buffers between a server and a client hold."""

LAZY_WATCHERS = 5


async def test_h56_a_slow_watcher_does_not_hold_up_the_saga(killable: World, server: Process) -> None:
    names = [f"step_{i}" for i in range(WIDE_STEPS)]
    gate = Gate()
    for name in names:
        killable.worker.on(name, gate.before(succeed("x" * WIDE_BYTES)))
    await killable.client.register(definition("wide", *(step(name, after=[]) for name in names), output={}))
    saga = await killable.client.start("wide", None, id="s")
    async with AsyncExitStack() as stack:
        lazy = [await lazy_watch(server.address, stack) for _ in range(LAZY_WATCHERS)]
        firsts = [await stream.read() for stream in lazy]
        gate.release()
        assert (await killable.settled(saga)).status is SagaStatus.COMPLETED  # nobody has read on
        for first, stream in zip(firsts, lazy, strict=True):
            responses = [first]
            async with asyncio.timeout(WAIT_S):
                while (response := await stream.read()) is not grpc.aio.EOF:
                    responses.append(response)
            assert [r.event.sequence for r in responses] == list(range(1, 2 * WIDE_STEPS + 3))
            assert sum(len(r.event.step_succeeded.output.json) for r in responses) == WIDE_STEPS * (WIDE_BYTES + 2)


async def lazy_watch(address: str, stack: AsyncExitStack) -> Stream:
    """A stream that nobody reads yet, on a connection of its own: what piles up there holds up no other."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
    return Wire.on(channel).orchestrator.WatchSaga(orchestrator_pb2.WatchSagaRequest(saga_id="s"))
