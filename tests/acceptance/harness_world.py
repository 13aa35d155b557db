"""An orchestrator, a scripted participant and a client together, and what a test asks of them again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from amends import Client, Event, SagaHandle, SagaView
from amends.v1 import definition_pb2, operator_pb2_grpc, orchestrator_pb2_grpc
from tests.acceptance.harness_definitions import WORKER
from tests.acceptance.harness_ledger import WAIT_S, Ledger
from tests.acceptance.harness_orchestrator import InProcess, Orchestrator
from tests.acceptance.harness_participant import ScriptedParticipant

UNARY, SESSION = "unary", "session"

OVER_BOTH_LINKS = pytest.mark.parametrize("link", [UNARY, SESSION])
"""For tests of what may differ by the way in which calls reach the worker of their world."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call was refused: its status, the reason and metadata of its ErrorInfo, and its BadRequest by field."""

    code: grpc.StatusCode
    reason: str
    metadata: Mapping[str, str]
    violations: Mapping[str, str]
    message: str


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What a refusal's details say."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    rich = rpc_status.from_call(error)
    for detail in rich.details if rich is not None else ():
        detail.Unpack(info)
        detail.Unpack(request)
    violations = {violation.field: violation.description for violation in request.field_violations}
    return Refusal(error.code(), info.reason, dict(info.metadata), violations, error.details() or "")


@dataclass(frozen=True, slots=True)
class Wire:
    """Plain stubs, for what the SDK cannot say."""

    channel: grpc.aio.Channel
    orchestrator: orchestrator_pb2_grpc.OrchestratorServiceStub
    operator: operator_pb2_grpc.OperatorServiceStub

    @classmethod
    def on(cls, channel: grpc.aio.Channel) -> Wire:
        return cls(
            channel,
            orchestrator_pb2_grpc.OrchestratorServiceStub(channel),
            operator_pb2_grpc.OperatorServiceStub(channel),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A server with the participant `worker` registered, and a client of it."""

    orchestrator: Orchestrator
    worker: ScriptedParticipant
    ledger: Ledger
    client: Client
    wire: Wire

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, folder: Path, orchestrator: Orchestrator | None = None, *, link: str = UNARY
    ) -> AsyncGenerator[World]:
        """Start everything inside the block; the orchestrator is a new one in this process if none is given.

        `link`: how the worker takes its calls.
        """
        async with AsyncExitStack() as stack:
            ledger = Ledger(folder / "ledger.jsonl")
            stack.callback(ledger.close)
            server = orchestrator or InProcess(folder / "amends.db")
            await server.start()
            stack.push_async_callback(server.stop)
            worker = ScriptedParticipant(WORKER, ledger, sessions=link == SESSION)
            await worker.start()
            stack.push_async_callback(worker.close)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
            client = await stack.enter_async_context(Client(server.address, retry_for=WAIT_S))
            await client.put_participant(WORKER, worker.address)
            yield cls(orchestrator=server, worker=worker, ledger=ledger, client=client, wire=Wire.on(channel))

    async def add_participant(self, participant: ScriptedParticipant) -> None:
        """Start and register another participant; the test closes it."""
        await participant.start()
        await self.client.put_participant(participant.name, participant.address)

    async def start(
        self, definition: definition_pb2.Definition, input: object = None, *, id: str = "s"
    ) -> SagaHandle[object]:
        """Register the definition, and start a saga of it."""
        await self.client.register(definition)
        return await self.client.start(definition.name, input, id=id)

    async def run(
        self, definition: definition_pb2.Definition, input: object = None, *, id: str = "s", timeout_s: float = WAIT_S
    ) -> SagaView:
        """Run a saga to where it is final or STUCK."""
        return await self.settled(await self.start(definition, input, id=id), timeout_s)

    async def settled(self, saga: SagaHandle[object] | str, timeout_s: float = WAIT_S) -> SagaView:
        """The saga once it is final or STUCK, also over a restart of the orchestrator."""
        handle = self.client.saga(None, saga) if isinstance(saga, str) else saga
        async with asyncio.timeout(timeout_s):
            return await handle.wait()

    async def journal(self, saga: str = "s") -> list[Event]:
        """The events so far of a saga, up to those that its view includes."""
        view = await self.client.get(saga)
        events: list[Event] = []
        async with asyncio.timeout(WAIT_S):
            async for event in self.client.saga(None, saga).watch():
                events.append(event)
                if event.sequence >= view.sequence:
                    break
        return events

    async def until(self, saga: str, kind: str, step: str | None = None) -> Event:
        """Wait for an event of a saga, for example `until("s", "step_succeeded", "one")`."""
        async with asyncio.timeout(WAIT_S):
            async for event in self.client.saga(None, saga).watch():
                if event.kind == kind and step in (None, event.step):
                    return event
        raise AssertionError(f"saga {saga} ended without {kind} of {step}")
