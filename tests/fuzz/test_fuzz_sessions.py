"""Hostile clients of the server's sessions: garbage, ids that come twice, floods, and readers that read nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import grpc
import pytest

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc, saga_pb2
from amends_server.service import outcomes
from amends_server.service import session as server_session
from amends_server.service.session import STARTS_MAX
from tests.fuzz.messages import Maker
from tests.fuzz.target import CLEAN, KNOWN, WAIT_S, Raw, Target, target

TIMES = int(os.environ.get("AMENDS_FUZZ", "1"))
SESSION = "/amends.v1.OrchestratorService/Session"
ENDINGS = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
OUTCOMES = {code.value[0] for code in CLEAN | {grpc.StatusCode.ABORTED}}

Stream = grpc.aio.StreamStreamCall[pb.OrchestratorServiceSessionRequest, pb.OrchestratorServiceSessionResponse]


@pytest.fixture
async def fuzzed(tmp_path: Path) -> object:
    async with target(f"sqlite:///{tmp_path / 'amends.db'}", tmp_path) as opened:
        yield opened


@pytest.mark.timeout(600 * TIMES)
async def test_sessions_end_cleanly_whatever_a_client_sends(fuzzed: Target) -> None:
    for number in range(25 * TIMES):
        random = Random(f"session/{number}")
        maker = Maker(random, KNOWN)
        raw = Raw(fuzzed.channel.stream_stream(SESSION)())
        sent = [maker.bytes_of(pb.OrchestratorServiceSessionRequest.DESCRIPTOR) for _ in range(random.randrange(1, 9))]
        code = await raw.through(pb.OrchestratorServiceSessionRequest(result_credits=10_000).SerializeToString(), *sent)
        mistakes = fuzzed.mistakes.taken()
        assert (code in ENDINGS, mistakes) == (True, []), f"session/{number} ended with {code} after {sent!r}"
        for data in raw.received:
            for outcome in pb.OrchestratorServiceSessionResponse.FromString(data).outcomes:
                assert outcome.status_code in OUTCOMES, f"session/{number}: {outcome}"


def started(start_id: int, saga_id: str, name: str = "known") -> pb.SessionStart:
    request = pb.StartSagaRequest(saga_id=saga_id, definition=pb.DefinitionRef(name=name), wait=True)
    return pb.SessionStart(id=start_id, start=request)


def has_ended(outcome: pb.SessionOutcome) -> bool:
    return outcome.saga.status == saga_pb2.SAGA_STATUS_COMPLETED


async def test_an_id_that_comes_twice_harms_nobody(fuzzed: Target) -> None:
    """Both ends are told, and the sagas of others go on, whose ends come through the same hub."""
    stream: Stream = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel).Session()
    starts = [started(1, f"twice-{number}", "wait" if number < 2 else "known") for number in range(4)]
    await stream.write(pb.OrchestratorServiceSessionRequest(starts=starts, result_credits=100))
    ends: list[str] = []
    async with asyncio.timeout(WAIT_S):
        while len(ends) < 4:
            response = await stream.read()
            assert isinstance(response, pb.OrchestratorServiceSessionResponse)
            ends += [each.saga.saga_id for each in response.outcomes if has_ended(each)]
    stream.cancel()
    assert sorted(ends) == [f"twice-{number}" for number in range(4)]
    assert fuzzed.mistakes.taken() == []


async def test_a_client_that_starts_far_more_than_it_may_is_cut_off_and_others_go_on(fuzzed: Target) -> None:
    nonsense = [pb.SessionStart(id=number) for number in range(10 * STARTS_MAX)]
    stream: Stream = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel).Session()
    await stream.write(pb.OrchestratorServiceSessionRequest(starts=nonsense))
    assert await ending(stream) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "There are 1024 starts under way already")
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel)
    request = pb.StartSagaRequest(saga_id="other", definition=pb.DefinitionRef(name="known"), wait=True)
    assert (await stub.StartSaga(request, timeout=WAIT_S)).saga.saga_id == "other"


async def test_large_starts_wait_on_the_wire_until_the_ones_before_are_durable(
    fuzzed: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_session, "STARTS_BYTES_MAX", 100_000)
    stream: Stream = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel).Session()
    for number in range(50):
        one = started(number, f"large-{number}")
        one.start.input.json = '"' + "x" * 60_000 + '"'
        await stream.write(pb.OrchestratorServiceSessionRequest(starts=[one], result_credits=2))
    ends = 0
    async with asyncio.timeout(WAIT_S):
        while ends < 50:
            response = await stream.read()
            assert isinstance(response, pb.OrchestratorServiceSessionResponse)
            ends += sum(has_ended(outcome) for outcome in response.outcomes)
    stream.cancel()


async def test_of_ends_that_a_client_does_not_take_it_has_to_ask(
    fuzzed: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "ENDS_MAX", 3)
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel)
    stream: Stream = stub.Session()
    await stream.write(pb.OrchestratorServiceSessionRequest(starts=[started(n, f"slow-{n}") for n in range(8)]))
    for number in range(8):
        await settled(stub, f"slow-{number}")
    await stream.write(pb.OrchestratorServiceSessionRequest(result_credits=16))
    found: list[pb.SessionOutcome] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < 16:
            response = await stream.read()
            assert isinstance(response, pb.OrchestratorServiceSessionResponse)
            found += response.outcomes
    stream.cancel()
    assert {outcome.status_code for outcome in found} == {0, grpc.StatusCode.ABORTED.value[0]}


async def test_more_sessions_than_may_be_are_refused(fuzzed: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amends_server.service.orchestrator.SESSIONS_MAX", 3)  # one is the target's own client's
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel)
    streams: list[Stream] = [stub.Session() for _ in range(2)]
    for stream in streams:
        assert isinstance(await stream.read(), pb.OrchestratorServiceSessionResponse)
    assert await ending(stub.Session()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "There are 3 sessions already")


async def ending(stream: Stream) -> tuple[grpc.StatusCode, str]:
    """The status with which the server ends a stream, and the beginning of its text."""
    try:
        async with asyncio.timeout(WAIT_S):
            while await stream.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return error.code(), (error.details() or "").partition(":")[0]
    return grpc.StatusCode.OK, ""


async def settled(stub: orchestrator_pb2_grpc.OrchestratorServiceAsyncStub, saga_id: str) -> None:
    """Wait for the end of a saga that may not be there yet."""
    code = grpc.StatusCode.NOT_FOUND
    async with asyncio.timeout(WAIT_S):
        while code is grpc.StatusCode.NOT_FOUND:
            call = stub.GetSaga(pb.GetSagaRequest(saga_id=saga_id, wait=True))
            code = await call.code()
    assert code is grpc.StatusCode.OK
