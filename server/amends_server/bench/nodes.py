"""The three processes that are measured: a participant, an orchestrator, and a client that loads them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from amends import Client
from amends._loop import run
from amends.errors import Compensated
from amends.participant.serve import serving as serving_participant
from amends.payloads import encode
from amends.v1 import orchestrator_pb2, orchestrator_pb2_grpc, participant_pb2, participant_pb2_grpc, saga_pb2
from amends_server.app import serving
from amends_server.bench.load import answered, drive
from amends_server.bench.workloads import BY_NAME, Workload, participant
from amends_server.config import load_settings
from amends_server.interpreter import tune_interpreter
from amends_server.logs import set_up_logs

START_TIMEOUT_S = 60.0

CALL_S_MAX = 60.0
"""How long a call of the load may take: what is overloaded is slow, and that is what is measured."""


class UnaryServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """A participant as others write them: without sessions."""

    def __init__(self, served: participant_pb2_grpc.ParticipantServiceServicer) -> None:
        self._served: Any = served

    async def Execute(self, request: participant_pb2.ExecuteRequest, context: Any) -> participant_pb2.ExecuteResponse:
        response: participant_pb2.ExecuteResponse = await self._served.Execute(request, context)
        return response

    async def Compensate(
        self, request: participant_pb2.CompensateRequest, context: Any
    ) -> participant_pb2.CompensateResponse:
        response: participant_pb2.CompensateResponse = await self._served.Compensate(request, context)
        return response

    async def Describe(
        self, request: participant_pb2.DescribeRequest, context: Any
    ) -> participant_pb2.DescribeResponse:
        response: participant_pb2.DescribeResponse = await self._served.Describe(request, context)
        return response

    async def Session(
        self, request_iterator: AsyncIterator[participant_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[participant_pb2.SessionResponse]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no sessions")
        yield participant_pb2.SessionResponse()


@asynccontextmanager
async def serving_unary() -> AsyncGenerator[str, None]:
    """Serve the participant without sessions."""
    server = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(UnaryServicer(participant.servicer()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def until_stopped(address: str) -> None:
    """Tell the parent that the process listens, and wait for SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(f"ready {address}", flush=True)
    await stopped.wait()


async def serve_participant(link: str) -> None:
    async with serving_participant(participant) if link == "session" else serving_unary() as address:
        await until_stopped(address)


async def serve_counted(url: str, address: str) -> None:
    """Serve an orchestrator on PostgreSQL that tells at SIGUSR1 how often it has waited for the database."""
    from amends_server.bench.roundtrips import count_round_trips

    count = count_round_trips()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print(count(), flush=True))
    await serve_orchestrator(url, address)


async def serve_orchestrator(path: str, address: str) -> None:
    set_up_logs("warning", "text")
    tune_interpreter()
    store = path if "://" in path else f"sqlite:///{path}"
    settings = load_settings(
        listen="127.0.0.1:0", store=store, participants={participant.name: address}, reflection=False
    )
    async with serving(settings) as server:
        await until_stopped(server.address)


async def load(link: str, address: str, workload: str, concurrency: str, seconds: str) -> None:
    async with Client(address, timeout=CALL_S_MAX) as client, grpc.aio.insecure_channel(address) as channel:
        chosen = BY_NAME[workload]
        one = run_in_session(client, chosen) if link == "session" else await run_unary(client, channel, chosen)
        print(json.dumps(await drive(one, int(concurrency), float(seconds))), flush=True)


def run_in_session(client: Client, workload: Workload) -> Callable[[], Awaitable[None]]:
    """Run sagas as users of the SDK do."""
    definition, value = workload.definition(), workload.input()
    refused = workload.name == "refused"

    async def one() -> None:
        saga = await client.start(definition, value)
        try:
            await saga.result()
        except Compensated:
            assert refused, "a saga was compensated"

    return one


async def run_unary(client: Client, channel: grpc.aio.Channel, workload: Workload) -> Callable[[], Awaitable[None]]:
    """Run sagas as a client without SDK does: one RPC, which is answered at the end of the saga."""
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
    digest = (await client.register(workload.definition())).definition.digest
    value = encode(workload.input())
    wanted = saga_pb2.SAGA_STATUS_COMPENSATED if workload.name == "refused" else saga_pb2.SAGA_STATUS_COMPLETED

    async def one() -> None:
        request = orchestrator_pb2.StartSagaRequest(
            saga_id=uuid.uuid4().hex,
            definition=orchestrator_pb2.DefinitionRef(digest=digest),
            input=value,
            wait=True,
        )
        response = await answered(partial(stub.StartSaga, timeout=START_TIMEOUT_S), request)
        assert response.saga.status == wanted, response.saga.status

    return one


if __name__ == "__main__":
    ROLES: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "participant": serve_participant,
        "orchestrator": serve_orchestrator,
        "counted": serve_counted,
        "load": load,
    }
    role = sys.argv[1]
    # Clients are programs of users, who choose their loop; the other two run as `amends serve` and `amends.run` do.
    (asyncio.run if role == "load" else run)(ROLES[role](*sys.argv[2:]))
