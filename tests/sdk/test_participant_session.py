"""Sessions of the participant kit, seen from an orchestrator that does what it should not, or what is rare."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amends import Participant
from amends.participant._servicer import Servicer
from amends.participant._session import CALLS_MAX, Session
from amends.participant.participant import PLAIN_HANDLERS_MAX
from amends.participant.serve import serving
from amends.v1 import participant_pb2 as pb
from amends.v1 import participant_pb2_grpc, saga_pb2

WAIT_S = 30.0
kit = Participant("kit")
running = 0


@kit.action
async def echo(request: str) -> str:
    return request


@kit.action
def plain(request: str) -> str:
    return request


@kit.action
async def hang(request: str) -> str:
    global running
    running += 1
    try:
        await asyncio.Event().wait()
    finally:
        running -= 1
    return request


class OddError(BaseException):
    pass


@kit.action
async def odd(request: str) -> str:
    raise OddError


@kit.action
def leave(request: str) -> str:
    sys.exit("bye")


Stream = grpc.aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with serving(kit) as address, grpc.aio.insecure_channel(address) as channel:
        opened = participant_pb2_grpc.ParticipantServiceStub(channel).Session()
        yield opened
        opened.cancel()


async def test_results_wait_for_credits(stream: Stream) -> None:
    assert (await read(stream)).call_credits == CALLS_MAX
    await stream.write(request(*(call(i, "echo") for i in range(20)), result_credits=3))
    assert len(await results(stream, 3)) == 3
    await stream.write(request(result_credits=1))
    assert len(await results(stream, 1)) == 1
    await stream.write(request(result_credits=16))
    assert len(await results(stream, 16)) == 16


async def test_a_call_is_broken_off_when_its_time_is_up(stream: Stream) -> None:
    """As a single call is: a handler that nobody waits for any more must not run on beside its compensation."""
    assert (await read(stream)).call_credits == CALLS_MAX
    late = call(1, "hang")
    late.timeout.FromMilliseconds(50)
    await stream.write(request(late, call(2, "hang"), result_credits=2))
    (result,) = await results(stream, 1)
    assert (result.id, result.status_code) == (1, grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert running == 1, "the other one may take as long as it likes"


async def test_a_call_is_broken_off_in_time_beside_others_that_were_answered(stream: Stream) -> None:
    calls = [*(call(number, "echo") for number in range(1, 5)), call(5, "hang")]
    for each in calls:
        each.timeout.FromMilliseconds(100)
    await stream.write(request(*calls, result_credits=5))
    ended = {result.id: result.status_code for result in await results(stream, 5)}
    assert ended[5] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_plain_handlers_that_have_all_threads_hold_up_nothing_else() -> None:
    """Neither async handlers nor compensations, nor what asks whether the participant is there."""
    busy, free = Participant("busy"), threading.Event()

    @busy.action
    def block(request: str) -> str:
        free.wait(WAIT_S)
        return request

    @block.compensation
    def unblock(request: str, done: str | None) -> None: ...

    @busy.action(name="quick")
    async def quick(request: str) -> str:
        return request

    async with serving(busy) as address, grpc.aio.insecure_channel(address) as channel:
        stub, health = participant_pb2_grpc.ParticipantServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        opened = stub.Session()
        try:
            blocked = [call(i, "block") for i in range(2 * PLAIN_HANDLERS_MAX)]
            await opened.write(request(*blocked, call(1_000, "quick"), undoing(1_001, "block"), result_credits=1_000))
            assert {result.id for result in await results(opened, 2)} == {1_000, 1_001}
            assert len((await stub.Describe(pb.DescribeRequest(), timeout=WAIT_S)).actions) == 2
            checked = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
        finally:
            free.set()
        assert len(await results(opened, len(blocked))) == len(blocked)
        opened.cancel()


async def test_each_result_gives_a_credit_back(stream: Stream) -> None:
    given = (await read(stream)).call_credits
    await stream.write(request(*(call(i, "echo") for i in range(10)), result_credits=10))
    left = 10
    while left:
        response = await read(stream)
        assert response.call_credits == len(response.results)
        left -= len(response.results)
    assert given == CALLS_MAX


async def test_more_calls_than_were_allowed_are_refused_and_not_kept(stream: Stream) -> None:
    await stream.write(request(*(call(i, "hang") for i in range(CALLS_MAX)), result_credits=10))
    await stream.write(request(call(CALLS_MAX, "echo")))
    (refused,) = await results(stream, 1)
    assert (refused.id, refused.status_code) == (CALLS_MAX, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert refused.not_taken
    assert running == CALLS_MAX


class Scripted:
    """The orchestrator's end of a stream, whose messages come when the test says."""

    def __init__(self) -> None:
        self.requests = asyncio.Queue[pb.SessionRequest]()
        self.responses = asyncio.Queue[pb.SessionResponse]()

    async def read(self) -> pb.SessionRequest:
        return await self.requests.get()

    async def write(self, response: pb.SessionResponse) -> None:
        self.responses.put_nowait(response)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_calls_that_come_while_many_others_end_are_taken(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Between the end of a handler and that of its task the loop may read more calls: there is room for them."""

    async def main() -> None:
        end, busy, context = asyncio.Event(), CALLS_MAX * 3 // 4, Scripted()

        async def answer(call: pb.SessionCall) -> pb.SessionResult:
            await end.wait()
            return pb.SessionResult(id=call.id)

        async with asyncio.timeout(WAIT_S):
            serving = asyncio.create_task(Session(cast(Any, context), answer).run())
            await context.responses.get()
            context.requests.put_nowait(request(*(call(i, "any") for i in range(busy)), result_credits=CALLS_MAX))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # by now all handlers wait
            end.set()
            context.requests.put_nowait(request(*(call(i, "any") for i in range(busy, CALLS_MAX))))
            found: list[pb.SessionResult] = []
            while len(found) < CALLS_MAX:
                found += (await context.responses.get()).results
            assert [result.id for result in found if result.not_taken] == []
            serving.cancel()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def test_a_participant_that_ends_says_of_further_calls_that_it_does_not_begin_them() -> None:
    released, begun = asyncio.Event(), asyncio.Event()
    ending = Participant("ending")

    @ending.action(name="wait")
    async def wait(request: str) -> str:
        begun.set()
        await released.wait()
        return request

    server, servicer = grpc.aio.server(), Servicer(ending)
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        opened = participant_pb2_grpc.ParticipantServiceStub(channel).Session()
        await opened.write(request(call(1, "wait"), result_credits=10))
        await asyncio.wait_for(begun.wait(), WAIT_S)
        servicer.drain()
        await opened.write(request(call(2, "wait")))
        (declined,) = await results(opened, 1)
        unavailable = grpc.StatusCode.UNAVAILABLE.value[0]
        assert (declined.id, declined.status_code, declined.not_taken) == (2, unavailable, True)
        released.set()
        (done,) = await results(opened, 1)
        assert (done.id, done.reply.status, done.not_taken) == (1, saga_pb2.REPLY_STATUS_SUCCESS, False)
        assert await asyncio.wait_for(opened.read(), WAIT_S) is grpc.aio.EOF
    await server.stop(None)


async def test_handlers_end_with_the_stream(stream: Stream) -> None:
    await stream.write(request(call(1, "hang"), call(2, "echo"), result_credits=10))
    await results(stream, 1)
    assert running == 1
    stream.cancel()
    async with asyncio.timeout(WAIT_S):
        while running:  # noqa: ASYNC110 – the handler's end is what is looked for, and has no event
            await asyncio.sleep(0.01)


async def test_plain_and_unknown_and_empty_calls(stream: Stream) -> None:
    keyless = call(3, "echo")
    keyless.execute.call.key = ""
    await stream.write(request(call(1, "plain"), call(2, "nothing"), keyless, pb.SessionCall(id=4), result_credits=10))
    found = {result.id: result for result in await results(stream, 4)}
    assert found[1].reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    assert found[2].status_code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert "echo" in found[2].status_message
    assert found[3].status_code == found[4].status_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_large_results_go_in_messages_of_their_own(stream: Stream) -> None:
    big = [call(i, "echo") for i in range(6)]
    for each in big:
        each.execute.input.json = '"' + "x" * 700_000 + '"'
        await stream.write(request(each, result_credits=1))
    sizes: list[int] = []
    while len(sizes) < len(big):
        response = await read(stream)
        assert len(response.results) <= 1
        sizes += [result.ByteSize() for result in response.results]
    assert min(sizes) > 700_000


async def test_a_handler_that_wants_to_end_the_process_ends_its_call_only(stream: Stream) -> None:
    given = (await read(stream)).call_credits
    await stream.write(request(call(1, "odd"), call(2, "leave"), call(3, "echo"), result_credits=10))
    found: dict[int, pb.SessionResult] = {}
    credits = 0
    while len(found) < 3:
        response = await read(stream)
        credits += response.call_credits
        found |= {result.id: result for result in response.results}
    assert [found[i].reply.error.code for i in (1, 2, 3)] == ["ODD_ERROR", "SYSTEM_EXIT", ""]
    assert (given, credits) == (CALLS_MAX, 3)


async def test_a_call_that_is_broken_off_has_a_result_all_the_same(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OddError

    monkeypatch.setattr(Servicer, "_execute", broken)
    await stream.write(request(call(1, "echo"), result_credits=10))
    (result,) = await results(stream, 1)
    assert result.status_code == grpc.StatusCode.INTERNAL.value[0]


def call(call_id: int, action: str) -> pb.SessionCall:
    made = pb.SessionCall(id=call_id)
    made.execute.action = action
    made.execute.call.key = f"key {call_id}"
    made.execute.input.json = '"x"'
    return made


def undoing(call_id: int, action: str) -> pb.SessionCall:
    made = pb.SessionCall(id=call_id)
    made.compensate.action = action
    made.compensate.call.key = made.compensate.execute_key = f"key {call_id}"
    made.compensate.input.json = '"x"'
    return made


def request(*calls: pb.SessionCall, result_credits: int = 0) -> pb.SessionRequest:
    return pb.SessionRequest(calls=calls, result_credits=result_credits)


async def read(stream: Stream) -> pb.SessionResponse:
    response = await asyncio.wait_for(stream.read(), WAIT_S)
    assert isinstance(response, pb.SessionResponse)
    return response


async def results(stream: Stream, count: int) -> list[pb.SessionResult]:
    """The next results, of which there must be neither more nor less."""
    found: list[pb.SessionResult] = []
    while len(found) < count:
        found += (await read(stream)).results
    assert len(found) == count
    return found
