"""The participant kit under hostile callers, and the orchestrator under hostile participants."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from amends import Client, Participant, SagaHandle
from amends.participant._session import CALLS_MAX
from amends.participant.serve import serving
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc, participant_pb2_grpc
from amends.v1 import participant_pb2 as pb
from amends_server.transport.session import RESULTS_MAX
from tests.acceptance.harness import definition, step
from tests.fuzz.messages import Maker
from tests.fuzz.target import WAIT_S, Mistakes, Raw, Target, target

TIMES = int(os.environ.get("AMENDS_FUZZ", "1"))
SERVICE = pb.DESCRIPTOR.services_by_name["ParticipantService"]
KNOWN = {
    "action": ("echo", "count", "nothing"),
    "key": ("k1", "k2"),
    "execute_key": ("k1", "k2"),
    "json": ("1", "{}", '"a"'),
}
CLEAN = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
ENDINGS = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}

SAY_S = 0.5
"""For a hostile participant to have its say; it may also take no call at all."""

kit = Participant("kit")


@kit.action
async def echo(request: object) -> object:
    return request


@kit.action
async def count(request: dict[str, int]) -> int:
    return sum(request.values())


@echo.compensation
async def unecho(request: object, done: object | None) -> None: ...


Context = grpc.aio.ServicerContext[Any, Any]


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    async with serving(kit) as address, grpc.aio.insecure_channel(address) as opened:
        yield opened


@pytest.mark.timeout(600 * TIMES)
@pytest.mark.parametrize("name", ["Execute", "Compensate", "Describe"])
async def test_the_kit_answers_hostile_calls_cleanly(channel: grpc.aio.Channel, name: str) -> None:
    with Mistakes() as mistakes:
        for number in range(100 * TIMES):
            data = Maker(Random(f"{name}/{number}"), KNOWN).bytes_of(SERVICE.methods_by_name[name].input_type)
            call: Any = channel.unary_unary(f"/{SERVICE.full_name}/{name}")(data, timeout=WAIT_S)
            code = await call.code()
            assert (code in CLEAN, mistakes.taken()) == (True, []), f"{name}/{number} was answered {code}: {data!r}"


@pytest.mark.timeout(600 * TIMES)
async def test_sessions_of_the_kit_end_cleanly_whatever_an_orchestrator_sends(channel: grpc.aio.Channel) -> None:
    with Mistakes() as mistakes:
        for number in range(20 * TIMES):
            random = Random(f"session/{number}")
            maker = Maker(random, KNOWN)
            sent = [maker.bytes_of(pb.SessionRequest.DESCRIPTOR) for _ in range(random.randrange(1, 9))]
            raw = Raw(channel.stream_stream(f"/{SERVICE.full_name}/Session")())
            code = await raw.through(pb.SessionRequest(result_credits=10_000).SerializeToString(), *sent)
            assert (code in ENDINGS, mistakes.taken()) == (True, []), f"session/{number} ended with {code}: {sent!r}"


async def test_the_kit_cuts_off_who_calls_far_more_than_it_takes(channel: grpc.aio.Channel) -> None:
    stream: Any = participant_pb2_grpc.ParticipantServiceStub(channel).Session()
    await stream.write(pb.SessionRequest(calls=[pb.SessionCall(id=number) for number in range(5 * CALLS_MAX)]))
    assert await ending(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def ending(stream: Any) -> grpc.StatusCode:
    try:
        async with asyncio.timeout(WAIT_S):
            while await stream.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class Hostile:
    """A participant that answers every call, and every session, with bytes that a `Maker` has made."""

    def __init__(self, seed: str, known_ids: range, *, describes: bool = False) -> None:
        self._maker = Maker(Random(seed), {})
        self._ids = known_ids
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {
            "Execute": grpc.unary_unary_rpc_method_handler(self._answer(pb.ExecuteResponse)),
            "Compensate": grpc.unary_unary_rpc_method_handler(self._answer(pb.CompensateResponse)),
            "Session": grpc.stream_stream_rpc_method_handler(self._session),
        }
        if describes:
            handlers["Describe"] = grpc.unary_unary_rpc_method_handler(self._answer(pb.DescribeResponse))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> Hostile:
        await self._server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.stop(None)

    def _answer(self, kind: Any) -> Any:
        async def answer(_: bytes, context: Context) -> bytes:
            return self._maker.bytes_of(kind.DESCRIPTOR)

        return answer

    async def _session(self, requests: Any, context: Context) -> None:
        """Take calls, and send nonsense: for calls that there are, and for others."""
        await context.write(pb.SessionResponse(call_credits=100).SerializeToString())
        while await context.read() is not grpc.aio.EOF:
            made = self._maker.message(pb.SessionResponse.DESCRIPTOR)
            for place, result in enumerate(made.results):
                result.id = self._ids[place % len(self._ids)]
            await context.write(made.SerializeToString())
            await context.write(self._maker.bytes_of(pb.SessionResponse.DESCRIPTOR))


@pytest.fixture
async def fuzzed(tmp_path: Path) -> AsyncIterator[Target]:
    async with target(f"sqlite:///{tmp_path / 'amends.db'}", tmp_path) as opened:
        yield opened


@pytest.mark.timeout(600 * TIMES)
async def test_i41_what_a_hostile_participant_answers_harms_its_own_sagas_only(fuzzed: Target) -> None:
    """Each of its sagas goes on, waits or is stuck by what it answered; those of others complete meanwhile."""
    bad = definition("bad", step("one", participant="bad", timeout_s=0.2, undo_timeout_s=0.2, undo_attempts=2))
    async with Client(fuzzed.server.address) as client:
        for number in range(8 * TIMES):
            async with Hostile(f"hostile/{number}", range(1, 40)) as hostile:
                await client.put_participant("bad", hostile.address)
                await client.register(bad)
                sagas = [await client.start("bad", number, id=f"bad-{number}-{each}") for each in range(5)]
                good = await client.start("known", number, id=f"good-{number}")
                async with asyncio.timeout(WAIT_S):
                    assert await good.result() is not None
                said = [asyncio.create_task(answered(saga)) for saga in sagas]
                await asyncio.wait(said, timeout=SAY_S)
                for task in said:
                    task.cancel()
                assert fuzzed.mistakes.taken() == [], f"hostile/{number}"


async def answered(saga: SagaHandle[object]) -> None:
    """Wait until the hostile participant has had its say: an event behind the start and the first call."""
    async for event in saga.watch():
        if event.sequence > 2:
            break


async def test_what_a_hostile_participant_says_of_itself_is_taken_or_left(fuzzed: Target) -> None:
    wanted = definition("bad", *(step(f"s{number}", participant="bad") for number in range(50)))
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(fuzzed.channel)
    async with Client(fuzzed.server.address) as client:
        for number in range(30 * TIMES):
            async with Hostile(f"described/{number}", range(1), describes=True) as hostile:
                await client.put_participant("bad", hostile.address)
                checked = await stub.CheckDefinition(orchestrator_pb2.CheckDefinitionRequest(definition=wanted))
                assert checked.ByteSize() < 1 << 20
                assert fuzzed.mistakes.taken() == [], f"described/{number}"


class Flooding(Hostile):
    """Sends results that nobody has asked for, as fast as it may."""

    def __init__(self) -> None:
        super().__init__("flood", range(1))
        self.ended = asyncio.Event()

    async def _session(self, requests: Any, context: Context) -> None:
        flood = pb.SessionResponse(results=[pb.SessionResult(id=10_000 + n) for n in range(RESULTS_MAX // 2)])
        await context.write(pb.SessionResponse(call_credits=100).SerializeToString())
        await context.read()
        try:
            while True:
                await context.write(flood.SerializeToString())
        finally:
            self.ended.set()


async def test_i41_a_flood_of_results_ends_the_session_and_delays_nobody(fuzzed: Target) -> None:
    async with Client(fuzzed.server.address) as client, Flooding() as flooding:
        await client.put_participant("bad", flooding.address)
        await client.register(
            definition("bad", step("one", participant="bad", attempts=1, timeout_s=5, undo_attempts=1))
        )
        await client.start("bad", 1, id="flooded")
        async with asyncio.timeout(WAIT_S):
            await flooding.ended.wait()
            assert await (await client.start("known", 1, id="good")).result() is not None
