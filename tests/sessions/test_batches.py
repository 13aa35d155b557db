"""Batches stay below what gRPC takes by default, whatever is in them beside payloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from amends_server.clock import SystemClock
from amends_server.config import LABEL_LENGTH_MAX, LABELS_MAX, REASON_LENGTH_MAX
from amends_server.engine.commands import Succeeded, Verdict
from amends_server.engine.due import CallOrder, order_call, owed_calls
from amends_server.engine.events import Cancelled, Cause, StepFailed
from amends_server.engine.payload import Error, Json, Opaque
from amends_server.transport.attempts import LateCall
from amends_server.transport.endpoint import MESSAGE_BYTES_MIN, OVERHEAD_BYTES, PAYLOADS_MAX, Endpoint
from amends_server.transport.links import Transport
from amends_server.transport.requests import Origin, compensate_request
from amends_server.transport.session import BATCH_BYTES_MAX
from amends_server.transport.verdicts import CODE_LENGTH_MAX, MESSAGE_LENGTH_MAX
from tests.engine.build import Run, compensatable
from tests.sessions.raw import WAIT_S, RawParticipant, raw

CALLS = 300
LONGEST = "\N{GRINNING FACE}"
"""A character of four bytes."""

LABELS = {f"{number:02}".ljust(LABEL_LENGTH_MAX, LONGEST): LONGEST * LABEL_LENGTH_MAX for number in range(LABELS_MAX)}
FAILURE = Error(LONGEST * CODE_LENGTH_MAX, LONGEST * MESSAGE_LENGTH_MAX, "p" * 128, Json("0" * 1000))


class Told:
    """What became of calls."""

    def __init__(self) -> None:
        self.verdicts = asyncio.Queue[Verdict]()

    def late(self, call: LateCall, verdict: Verdict) -> None:
        raise AssertionError(call)


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def transport(told: Told) -> AsyncIterator[Transport]:
    opened = Transport(SystemClock(), 1 << 20, allows=lambda address: True, late=told.late)
    yield opened
    await opened.close()


def an_order(**more: Any) -> CallOrder:
    """A call that nobody is in a hurry about."""
    run = Run(compensatable("a"))
    (owed,) = owed_calls(run.state)
    return replace(order_call(run.state, owed), timeout_us=60_000_000, deadline=None, **more)


def an_origin(labels: dict[str, str]) -> Origin:
    started = replace(Run(compensatable("a")).state.started, labels=labels)
    return Origin(started=started, definition_name="order", definition_version=1, epoch=1)


async def test_calls_with_large_labels_go_in_batches_that_a_participant_takes(transport: Transport, told: Told) -> None:
    async with raw(call_credits=0) as worker:
        endpoint, origin = Endpoint("worker", worker.address, concurrency_max=CALLS), an_origin(LABELS)
        for _ in range(CALLS):
            transport.send(endpoint, an_order(), origin, told.verdicts.put_nowait)
        await until_opened(worker)
        worker.give(CALLS)  # all of them, whose labels are more than gRPC takes in one message
        calls = [await worker.call() for _ in range(CALLS)]
        assert sum(call.ByteSize() for call in calls) > MESSAGE_BYTES_MIN
        worker.succeed(*calls)
        for _ in range(CALLS):
            assert isinstance(await asyncio.wait_for(told.verdicts.get(), WAIT_S), Succeeded)
        assert worker.opened == 1


async def until_opened(worker: RawParticipant) -> None:
    async with asyncio.timeout(WAIT_S):
        while not worker.opened:  # noqa: ASYNC110 – what comes before the first call has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "cause",
    [
        StepFailed("b" * 64, FAILURE),
        Cancelled(LONGEST * REASON_LENGTH_MAX, "p" * 128),
    ],
    ids=["failure", "cancel"],
)
def test_the_largest_call_there_may_be_is_no_larger_than_channels_and_batches_allow_for(cause: Cause) -> None:
    payload_bytes_max = 1000
    typed = Opaque(b"0" * (payload_bytes_max - 100), "t" * 100)
    order = an_order(
        compensation=True,
        key="k" * 400,
        execute_key="e" * 400,
        input=typed,
        output=typed,
        arguments=typed,
        saga_input=typed,
        cause=cause,
    )
    origin = replace(an_origin(LABELS), definition_name="d" * 128)
    size = compensate_request(order, origin, 1 << 50).ByteSize()
    assert size <= PAYLOADS_MAX * payload_bytes_max + OVERHEAD_BYTES
    assert BATCH_BYTES_MAX + OVERHEAD_BYTES < MESSAGE_BYTES_MIN
