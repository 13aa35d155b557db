"""Serving a participant: the port, health, registration, and an orderly end."""

from __future__ import annotations

import asyncio
import importlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from amends.participant.participant import Participant
from amends.participant.serve import ServeError, serve, serving
from amends.payloads import encode
from amends.v1 import operator_pb2, operator_pb2_grpc, participant_pb2, participant_pb2_grpc, saga_pb2
from tests.ports import deserted

WAIT_S = 60.0

echo = Participant("echo")
entered = asyncio.Event()
released = asyncio.Event()


@echo.action
async def wait(request: str) -> str:
    entered.set()
    await released.wait()
    return request


@dataclass
class Registry(operator_pb2_grpc.OperatorServiceServicer):
    """An orchestrator that keeps what it is told, or says no; it calls back, as a real one may."""

    refuse_with: grpc.StatusCode | None = None
    registered: dict[str, str] = field(default_factory=dict[str, str])
    described: list[str] = field(default_factory=list[str])
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hang: bool = False

    async def PutParticipant(
        self, request: operator_pb2.PutParticipantRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> operator_pb2.PutParticipantResponse:
        self.asked.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.refuse_with:
            await context.abort(self.refuse_with, "not on the allow-list")
        participant = request.participant
        self.registered[participant.name] = participant.address
        async with grpc.aio.insecure_channel(participant.address) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            described = await stub.Describe(participant_pb2.DescribeRequest(), timeout=WAIT_S)
        self.described.append(described.participant)
        return operator_pb2.PutParticipantResponse(participant=participant)


@asynccontextmanager
async def orchestrator(registry: Registry, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    operator_pb2_grpc.add_OperatorServiceServicer_to_server(registry, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_it_says_that_it_is_healthy() -> None:
    async with serving(echo) as address, grpc.aio.insecure_channel(address) as channel:
        for service in ("", "amends.v1.ParticipantService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=WAIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_it_registers_itself_and_can_be_called_back() -> None:
    registry = Registry()
    async with orchestrator(registry) as target, serving(echo, orchestrator=target) as address:
        assert registry.registered == {"echo": address}
        assert registry.described == ["echo"]


async def test_it_advertises_another_address_when_told() -> None:
    registry = Registry()
    async with (
        serving(echo) as real,
        orchestrator(registry) as target,
        serving(echo, listen="0.0.0.0:0", orchestrator=target, advertise=real),
    ):
        assert registry.registered == {"echo": real}
    with pytest.raises(ValueError, match="advertise"):
        await serve(echo, listen="0.0.0.0:0", orchestrator=target)


async def test_it_waits_for_an_orchestrator_that_comes_up_later() -> None:
    registry, ready = Registry(), asyncio.Event()
    with deserted() as target:

        async def participant() -> None:
            async with serving(echo, orchestrator=target):
                ready.set()

        task = asyncio.create_task(participant())
        done, _ = await asyncio.wait([task], timeout=0.3)  # long enough for an attempt that finds nobody
        assert not done
        async with orchestrator(registry, target):
            await asyncio.wait_for(ready.wait(), WAIT_S)
            await task
    assert "echo" in registry.registered


async def test_it_gives_up_an_orchestrator_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("amends.participant.serve"), "REGISTRATION_S", 0.3)
    refusal = "did not register participant 'echo'.*UNAVAILABLE"
    with deserted() as target, pytest.raises(ServeError, match=f"{target} {refusal}"):
        await serve(echo, orchestrator=target)


async def test_a_refused_registration_is_not_tried_again() -> None:
    async with orchestrator(Registry(refuse_with=grpc.StatusCode.PERMISSION_DENIED)) as target:
        with pytest.raises(ServeError, match="allow-list"):
            await asyncio.wait_for(serve(echo, orchestrator=target), WAIT_S)


async def test_a_second_server_on_the_port_is_refused() -> None:
    async with serving(echo) as address:
        with pytest.raises(ServeError, match=f"cannot listen on {address}: another server"):
            await serve(echo, listen=address)


async def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(ValueError, match="no actions"):
        await serve(Participant("empty"))
    for listen in ("localhost", "localhost:http", "localhost:70000", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            await serve(echo, listen=listen)


async def test_d43_calls_in_flight_are_finished_at_the_end() -> None:
    global entered, released
    entered, released = asyncio.Event(), asyncio.Event()  # of this event loop
    async with serving(echo) as address:
        channel = grpc.aio.insecure_channel(address)
        request = participant_pb2.ExecuteRequest(
            call=participant_pb2.Call(key="k"), action="wait", input=encode("late")
        )
        running = participant_pb2_grpc.ParticipantServiceStub(channel).Execute(request, timeout=WAIT_S)
        await asyncio.wait_for(entered.wait(), WAIT_S)
        asyncio.get_running_loop().call_later(0.1, released.set)
    assert (await running).reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    await channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_script_ends_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    process = await started(tmp_path)
    assert process.stdout is not None
    ready = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode().split()
    async with grpc.aio.insecure_channel(ready[1]) as channel:
        request = participant_pb2.ExecuteRequest(call=participant_pb2.Call(key="k"), action="slow", input=encode(1))
        running = participant_pb2_grpc.ParticipantServiceStub(channel).Execute(request, timeout=WAIT_S)
        assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"entered\n"
        process.send_signal(number)
        assert (await running).reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (ready[0], process.returncode, _but_for_late_calls(errors)) == ("ready", 0, b"")


def _but_for_late_calls(errors: bytes) -> bytes:
    """Leave out what gRPC prints when the event loop ends before it has heard of the end of a call."""
    return re.sub(rb"Traceback [^\n]*\n[^\n]*_schedule_rpc_coro\nasyncio\.exceptions\.CancelledError\n", b"", errors)


async def test_a_script_can_be_stopped_while_it_waits_for_its_orchestrator(tmp_path: Path) -> None:
    registry = Registry(hang=True)
    async with orchestrator(registry) as target:
        process = await started(tmp_path, target)
        await asyncio.wait_for(registry.asked.wait(), WAIT_S)
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (process.returncode, output, errors) == (0, b"", b"")


async def started(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    return await asyncio.create_subprocess_exec(
        sys.executable, str(script), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


SCRIPT = """
import sys
import time
from amends.participant.participant import Participant
from amends.participant.serve import run

slow = Participant("slow")

@slow.action(name="slow")
def work(request: int) -> int:
    print("entered", flush=True)
    time.sleep(0.5)
    return request

run(slow, orchestrator=sys.argv[1] if sys.argv[1:] else None)
"""
