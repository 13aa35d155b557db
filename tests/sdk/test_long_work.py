"""Long work at its edges: what handlers answer, and what completions are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest

from amends import AmendsError, Call, Completion, InProgress, Participant, PayloadError, serving
from amends.v1 import participant_pb2, participant_pb2_grpc, payload_pb2, saga_pb2

slow = Participant("slow")
COMPLETION = Completion(namespace="default", saga_id='a "b" ß', step="s", token="t-1")  # noqa: S106 - made up


@slow.action
async def wait(request: None, call: Call) -> None:
    call.relate("press", "7")
    raise InProgress


@slow.action
def poll(request: float, call: Call) -> None:
    call.later(poll=timedelta(seconds=request))


@poll.compensation
async def unpoll(request: float, done: None, call: Call) -> None:
    with pytest.raises(AmendsError, match="only actions have a completion"):
        str(call.completion)
    raise InProgress(poll=2)


@pytest.fixture
async def stub() -> AsyncIterator[participant_pb2_grpc.ParticipantServiceStub]:
    async with serving(slow) as address, grpc.aio.insecure_channel(address) as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)


def execute(action: str, json: str = "null") -> participant_pb2.ExecuteRequest:
    call = participant_pb2.Call(
        namespace="n",
        saga_id="o",
        step="s",
        key="k",
        attempt=1,
        completion_token="t",  # noqa: S106 - made up
    )
    return participant_pb2.ExecuteRequest(call=call, action=action, input=payload_pb2.Payload(json=json))


async def test_a_handler_says_that_the_outcome_follows(stub: participant_pb2_grpc.ParticipantServiceStub) -> None:
    reply = (await stub.Execute(execute("wait"))).reply
    assert reply.status == saga_pb2.REPLY_STATUS_IN_PROGRESS
    assert not reply.HasField("poll_interval")
    assert [(each.name, each.reference) for each in reply.related_services] == [("press", "7")]


async def test_a_handler_says_when_to_ask_again(stub: participant_pb2_grpc.ParticipantServiceStub) -> None:
    reply = (await stub.Execute(execute("poll", "1.5"))).reply
    assert (reply.status, reply.poll_interval.ToTimedelta()) == (
        saga_pb2.REPLY_STATUS_IN_PROGRESS,
        timedelta(seconds=1.5),
    )


async def test_a_compensation_may_be_in_progress_too(stub: participant_pb2_grpc.ParticipantServiceStub) -> None:
    call = participant_pb2.Call(namespace="n", saga_id="o", step="s", key="k2", attempt=1)
    request = participant_pb2.CompensateRequest(
        call=call, action="poll", execute_key="k", input=payload_pb2.Payload(json="1.0")
    )
    reply = (await stub.Compensate(request)).reply
    assert (reply.status, reply.poll_interval.seconds) == (saga_pb2.REPLY_STATUS_IN_PROGRESS, 2)


async def test_a_poll_interval_that_is_none_is_an_error_of_the_handler(
    stub: participant_pb2_grpc.ParticipantServiceStub,
) -> None:
    reply = (await stub.Execute(execute("poll", "0"))).reply
    assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_SYSTEM_ERROR, "VALUE_ERROR")


@pytest.mark.parametrize("poll", [0, -1, float("nan"), float("inf"), timedelta(0)])
def test_poll_intervals_are_longer_than_nothing(poll: float | timedelta) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        InProgress(poll=poll)


def test_a_completion_goes_into_a_text_that_fits_into_a_url_and_back() -> None:
    text = str(COMPLETION)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    assert Completion.parse(text) == COMPLETION
    assert "t-1" not in repr(COMPLETION)


@pytest.mark.parametrize("text", ["", "x", "{}", "ß", str(COMPLETION)[:-3], "WyJhIl0", "bnVsbA"])
def test_other_texts_are_no_completion(text: str) -> None:
    with pytest.raises(PayloadError, match="no completion"):
        Completion.parse(text)
