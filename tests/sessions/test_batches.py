"""Batches stay below what gRPC takes by default, whatever is in them beside payloads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amends_server.config import LABEL_LENGTH_MAX, LABELS_MAX, REASON_LENGTH_MAX
from amends_server.engine.commands import Succeeded
from amends_server.engine.events import Cancelled, Cause, StepFailed
from amends_server.engine.payload import Error, Json, Opaque
from amends_server.transport.endpoint import MESSAGE_BYTES_MIN, OVERHEAD_BYTES, PAYLOADS_MAX
from amends_server.transport.requests import compensate_request
from amends_server.transport.session import BATCH_BYTES_MAX
from amends_server.transport.verdicts import CODE_LENGTH_MAX, MESSAGE_LENGTH_MAX
from tests.sessions.calls import Calls, an_order, an_origin
from tests.sessions.raw import raw

CALLS = 300
LONGEST = "\N{GRINNING FACE}"
"""A character of four bytes."""

LABELS = {f"{number:02}".ljust(LABEL_LENGTH_MAX, LONGEST): LONGEST * LABEL_LENGTH_MAX for number in range(LABELS_MAX)}
FAILURE = Error(LONGEST * CODE_LENGTH_MAX, LONGEST * MESSAGE_LENGTH_MAX, "p" * 128, Json("0" * 1000))


async def test_calls_with_large_labels_go_in_batches_that_a_participant_takes(calls: Calls) -> None:
    async with raw(call_credits=0) as worker:
        for _ in range(CALLS):
            calls.send(worker, labels=LABELS)
        await worker.until_opened()
        worker.give(CALLS)  # all of them, whose labels are more than gRPC takes in one message
        sent = [await worker.call() for _ in range(CALLS)]
        assert sum(call.ByteSize() for call in sent) > MESSAGE_BYTES_MIN
        worker.succeed(*sent)
        for _ in range(CALLS):
            assert isinstance(await calls.verdict(), Succeeded)
        assert worker.opened == 1


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
