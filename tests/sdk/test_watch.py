"""Watching a saga: every event once and in order, whatever happens to the streams that bring them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest
from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from amends import (
    CauseKind,
    Client,
    DataLoss,
    Event,
    EventKind,
    NotFound,
    OutOfRange,
    SagaStatus,
    Unavailable,
)
from amends.v1 import orchestrator_pb2, payload_pb2, saga_pb2
from tests.sdk.scripted import Context, ScriptedOrchestrator, event, last_event, scripted

Script = Sequence[Message | bytes | grpc.StatusCode]


@pytest.fixture
async def orchestrator() -> AsyncGenerator[ScriptedOrchestrator, None]:
    async with scripted() as one:
        yield one


@pytest.fixture
async def client(orchestrator: ScriptedOrchestrator) -> AsyncGenerator[Client, None]:
    async with Client(orchestrator.address, retry_for=5) as one:
        yield one


def play(orchestrator: ScriptedOrchestrator, *streams: Script) -> None:
    """Have each watch get the next of these streams, the last one for ever."""
    left = list(streams)

    async def stream(_: object, context: Context) -> AsyncIterator[Message | bytes]:
        for each in left.pop(0) if len(left) > 1 else left[0]:
            if isinstance(each, grpc.StatusCode):
                await context.abort(each, f"scripted {each.name}")
            yield each

    orchestrator.on_stream("WatchSaga", stream)


def stands_at(orchestrator: ScriptedOrchestrator, status: int, sequence: int) -> None:
    saga = saga_pb2.Saga(saga_id="a", status=cast("Any", status), sequence=sequence)
    orchestrator.returns("GetSaga", orchestrator_pb2.GetSagaResponse(saga=saga))


async def watched(client: Client, *, after: int = 0) -> list[int]:
    return [each.sequence async for each in client.saga(None, "a").watch(after=after)]


def asked_after(orchestrator: ScriptedOrchestrator) -> list[int]:
    return [each.after_sequence for each in orchestrator.of(orchestrator_pb2.WatchSagaRequest)]


async def test_events_come_in_order_until_the_last(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [event(1), event(2), last_event(3)])
    assert await watched(client) == [1, 2, 3]
    assert orchestrator.requests == [orchestrator_pb2.WatchSagaRequest(namespace="default", saga_id="a")]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_broken_stream_goes_on_after_the_last_event(
    orchestrator: ScriptedOrchestrator, client: Client, code: grpc.StatusCode
) -> None:
    play(orchestrator, [event(4), event(5), code], [code], [event(6), code], [last_event(7), code])
    assert await watched(client, after=3) == [4, 5, 6, 7]
    assert asked_after(orchestrator) == [3, 5, 5, 6]


async def test_events_that_come_twice_are_given_once(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [event(1), event(1), event(2), grpc.StatusCode.UNAVAILABLE], [event(1), event(2), last_event(3)])
    assert await watched(client) == [1, 2, 3]


async def test_events_that_are_left_out_are_asked_for(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [event(1), event(3)], [event(2), event(3), last_event(4)])
    assert await watched(client) == [1, 2, 3, 4]
    assert asked_after(orchestrator) == [0, 1]


async def test_an_event_that_cannot_be_decoded_is_asked_for_again(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    play(orchestrator, [event(1), b"\xff", event(2)], [event(2), last_event(3)])
    assert await watched(client) == [1, 2, 3]
    assert asked_after(orchestrator) == [0, 1]


async def test_events_that_stay_lost_are_an_error(orchestrator: ScriptedOrchestrator) -> None:
    play(orchestrator, [event(1), event(4)], [event(4)])
    async with Client(orchestrator.address, retry_for=0.2) as client:
        with pytest.raises(DataLoss, match="The events 2 to 3 were left out"):
            await watched(client)


async def test_a_stream_that_ends_early_is_opened_again(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [event(1)], [], [event(2)], [last_event(3)])
    stands_at(orchestrator, saga_pb2.SAGA_STATUS_RUNNING, 2)
    assert await watched(client) == [1, 2, 3]


async def test_a_stream_that_ended_before_the_saga_did_is_opened_again(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    play(orchestrator, [event(1)], [event(2), last_event(3)])
    stands_at(orchestrator, saga_pb2.SAGA_STATUS_COMPLETED, 3)  # it went on meanwhile
    assert await watched(client) == [1, 2, 3]


async def test_nothing_comes_after_the_last_event(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [])
    stands_at(orchestrator, saga_pb2.SAGA_STATUS_COMPENSATED, 9)
    assert await watched(client, after=9) == []


async def test_a_watch_outlives_the_orchestrator(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    stopped = asyncio.Event()

    async def hangs(_: object, __: Context) -> AsyncIterator[Message | bytes]:
        yield event(1)
        await stopped.wait()

    orchestrator.on_stream("WatchSaga", hangs)
    async with aclosing(client.saga(None, "a").watch()) as events:
        assert (await anext(events)).sequence == 1
        await orchestrator.stop()
        stopped.set()
        play(orchestrator, [event(2), last_event(3)])
        await orchestrator.start()
        assert [each.sequence async for each in events] == [2, 3]
    assert asked_after(orchestrator) == [0, 1]


async def test_a_wait_that_is_cancelled_does_not_end_the_watch(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    """Whoever looks now and then would take that for the end of the saga."""

    async def hangs(_: object, __: Context) -> AsyncIterator[Message | bytes]:
        yield event(1)
        await asyncio.Event().wait()

    orchestrator.on_stream("WatchSaga", hangs)
    async with aclosing(client.saga(None, "a").watch()) as events:
        assert (await anext(events)).sequence == 1
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(events)
        play(orchestrator, [event(2), last_event(3)])
        assert [each.sequence async for each in events] == [2, 3]
    assert {*asked_after(orchestrator)} == {0, 1}


async def test_two_who_wait_for_the_next_event_get_one_each(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    play(orchestrator, [event(1), event(2), last_event(3)])
    events = client.saga(None, "a").watch()
    found = await asyncio.gather(anext(events), anext(events), anext(events))
    assert [each.sequence for each in found] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_what_is_thrown_into_a_watch_comes_out_and_ends_it(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    play(orchestrator, [event(1), last_event(2)])
    events = client.saga(None, "a").watch()
    await anext(events)
    with pytest.raises(KeyError):
        await events.athrow(KeyError)
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_patience_counts_from_the_last_event(orchestrator: ScriptedOrchestrator) -> None:
    gone = grpc.StatusCode.UNAVAILABLE
    streams: list[Script] = [[event(n), gone] for n in range(1, 9)]
    play(orchestrator, *streams, [last_event(9)])
    async with Client(orchestrator.address, retry_for=0.05) as client:
        assert await watched(client) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        play(orchestrator, [gone])
        with pytest.raises(Unavailable, match="scripted"):
            await watched(client)


@pytest.mark.parametrize(
    ("code", "raised"), [(grpc.StatusCode.OUT_OF_RANGE, OutOfRange), (grpc.StatusCode.NOT_FOUND, NotFound)]
)
async def test_refusals_are_raised(
    orchestrator: ScriptedOrchestrator, client: Client, code: grpc.StatusCode, raised: type[Exception]
) -> None:
    play(orchestrator, [code])
    with pytest.raises(raised):
        await watched(client)
    assert len(orchestrator.requests) == 1


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_watch_that_is_left_closes_its_stream(
    orchestrator: ScriptedOrchestrator, client: Client, by_name: bool
) -> None:
    closed = asyncio.Event()

    async def hangs(_: object, context: Context) -> AsyncIterator[Message | bytes]:
        context.add_done_callback(cast("Any", lambda _: closed.set()))
        yield event(1)
        await closed.wait()

    orchestrator.on_stream("WatchSaga", hangs)
    if by_name:
        async with aclosing(client.saga(None, "a").watch()) as events:
            assert (await anext(events)).sequence == 1
    else:
        async for each in client.saga(None, "a").watch():
            assert each.sequence == 1
            break
    async with asyncio.timeout(10):
        await closed.wait()


def test_every_kind_of_event_of_the_wire_is_known() -> None:
    on_the_wire = {field.name for field in saga_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert {kind.value for kind in EventKind} == on_the_wire | {"unrecognised"}


def test_events_tell_what_they_know() -> None:
    error = payload_pb2.Error(code="NO_STOCK", message="None left.", participant="inventory")
    stamp = timestamp_pb2.Timestamp(seconds=60)
    response = event(3, step_refused=saga_pb2.StepRefused(step="a", attempt=2, error=error))
    response.event.time.CopyFrom(stamp)
    refused = Event.of(response)
    assert (refused.sequence, refused.kind, refused.status) == (3, EventKind.STEP_REFUSED, SagaStatus.RUNNING)
    assert (refused.step, refused.attempt, refused.time) == ("a", 2, datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    assert str(refused.error) == "NO_STOCK: None left."
    assert refused.message == response.event

    cause = saga_pb2.Cause(step=saga_pb2.StepCause(step="a", error=error))
    turned = Event.of(event(4, saga_turned_back=saga_pb2.SagaTurnedBack(cause=cause)))
    assert turned.cause is not None
    assert (turned.cause.kind, turned.step, turned.attempt, turned.error) == (CauseKind.STEP, None, None, None)

    failed = Event.of(event(5, saga_failed=saga_pb2.SagaFailed(reason="enough", principal="eve")))
    assert (failed.kind.is_final, failed.reason, failed.principal) == (True, "enough", "eve")


def test_an_event_of_a_newer_orchestrator_is_passed_on() -> None:
    unknown = Event.of(orchestrator_pb2.WatchSagaResponse(event=saga_pb2.Event(sequence=1)))
    assert (unknown.sequence, unknown.kind, unknown.step) == (1, EventKind.UNRECOGNISED, None)
    assert not unknown.kind.is_final
