"""Servers for participants: a port, health, the orchestrator's registry, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import cycle

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from amends._addresses import addresses, proxy_options
from amends._loop import run as run_loop
from amends._unreadable import UnreadableRefused, refuse_unreadable
from amends.errors import AmendsError
from amends.participant._servicer import Servicer
from amends.participant.participant import Participant
from amends.v1 import operator_pb2, operator_pb2_grpc, participant_pb2, participant_pb2_grpc

DRAIN_S = 10.0  # what calls in flight get at the end; orchestrators ask again for those that do not make it
REGISTRATION_S = 60.0  # how long an orchestrator may take to come up beside its participants
REGISTRATION_ATTEMPT_S = 5.0
REGISTRATION_WAIT_S_MAX = 2.0

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),  # or a second server would share the port silently
    # How large payloads may be is the orchestrator's to say; a call that is refused here would be refused for ever.
    ("grpc.max_receive_message_length", -1),
    # Notice an orchestrator that stopped without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Orchestrators ping often; by default they would be cut off for it.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
]
_UNREACHABLE_HOSTS = ("0.0.0.0", "[::]", "")  # noqa: S104 - all interfaces, an address that nobody can call
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_SERVICE = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name


class ServeError(AmendsError):
    """A participant cannot be served: the port is taken, or the orchestrator does not register it."""


async def serve(
    participant: Participant,
    *,
    listen: str = "127.0.0.1:0",
    orchestrator: str | None = None,
    advertise: str | None = None,
) -> None:
    """Serve the participant until the task is cancelled; the arguments are those of `serving`."""
    async with serving(participant, listen=listen, orchestrator=orchestrator, advertise=advertise):
        await asyncio.Event().wait()


@asynccontextmanager
async def serving(
    participant: Participant,
    *,
    listen: str = "127.0.0.1:0",
    orchestrator: str | None = None,
    advertise: str | None = None,
) -> AsyncGenerator[str, None]:
    """Serve the participant inside the block, which gets the address as HOST:PORT. Calls in flight get 10 s at its end.

    `listen` is HOST:PORT, port 0 for a free one. With `orchestrator`, the participant is registered there before the
    block begins, under `advertise` (HOST:PORT) or else its own address; the orchestrator may take 60 s to come up. Of
    several that share a database, named with commas between, one registers it for all.

    :raises ValueError: `listen` or `orchestrator` is no address, or there is nothing to serve or to advertise.
    :raises ServeError: the port is taken, or the orchestrator does not register the participant.
    """
    host, port = _host_and_port(listen)
    if not participant.actions:
        raise ValueError(f"participant {participant.name!r} has no actions with code; there is nothing to serve")
    if orchestrator and not advertise and host in _UNREACHABLE_HOSTS:
        raise ValueError(f"{listen} is no address to call; say in `advertise` where orchestrators find the participant")
    server = grpc.aio.server(interceptors=(UnreadableRefused(refuse_unreadable),), options=_OPTIONS)
    servicer = Servicer(participant)
    health_service = await _add_services(server, servicer)
    address = _bound(server, host, port)
    await server.start()
    try:
        if orchestrator:
            await register(participant, orchestrator, advertise or address)
        yield address
    finally:
        await health_service.enter_graceful_shutdown()
        servicer.drain()
        await server.stop(DRAIN_S)


def run(
    participant: Participant,
    *,
    listen: str = "127.0.0.1:0",
    orchestrator: str | None = None,
    advertise: str | None = None,
) -> None:
    """Serve the participant until SIGTERM or SIGINT: for scripts. Prints `ready HOST:PORT` once it can be called."""

    async def main() -> None:
        async with (
            stopped_by_signals(),
            serving(participant, listen=listen, orchestrator=orchestrator, advertise=advertise) as address,
        ):
            print(f"ready {address}", flush=True)
            await asyncio.Event().wait()

    run_loop(main())


@asynccontextmanager
async def stopped_by_signals() -> AsyncGenerator[None, None]:
    """End the block in good order at the first SIGTERM or SIGINT; a second one does what it does otherwise."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals, stopped = (signal.SIGTERM, signal.SIGINT), asyncio.Event()

    def stop() -> None:
        stopped.set()
        restore()
        task.cancel()

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stopped.is_set() or task.uncancel() > 0:  # somebody else wants the end as well
            raise
    finally:
        restore()


async def register(participant: Participant, orchestrator: str, address: str) -> None:
    """Register the participant at an orchestrator, or at one of several; waits up to 60 s for it to come up.

    :raises ValueError: an address of an orchestrator is empty.
    :raises ServeError: no orchestrator came up, or one refused.
    """
    request = operator_pb2.PutParticipantRequest(
        participant=operator_pb2.Participant(name=participant.name, address=address)
    )
    in_turn = cycle(addresses(orchestrator))
    try:
        async for attempt in _attempts():
            with attempt:
                await _put(next(in_turn), request)
    except grpc.aio.AioRpcError as error:
        raise ServeError(
            f"the orchestrator at {orchestrator} did not register participant {participant.name!r} "
            f"at {address}: {error.code().name}: {error.details()}"
        ) from error


async def _put(orchestrator: str, request: operator_pb2.PutParticipantRequest) -> None:
    async with grpc.aio.insecure_channel(orchestrator, options=proxy_options(orchestrator)) as channel:
        await operator_pb2_grpc.OperatorServiceStub(channel).PutParticipant(request, timeout=REGISTRATION_ATTEMPT_S)


def _attempts() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, grpc.aio.AioRpcError) and error.code() in _PASSING),
        wait=wait_exponential(multiplier=0.1, max=REGISTRATION_WAIT_S_MAX) + wait_random(0, 0.1),
        stop=stop_after_delay(REGISTRATION_S),
        reraise=True,
    )


async def _add_services(server: grpc.aio.Server, servicer: Servicer) -> health.HealthServicer:
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server)
    health_service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    for service in ("", _SERVICE):
        await health_service.set(service, health_pb2.HealthCheckResponse.SERVING)
    return health_service


def _host_and_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 0xFFFF:
        raise ValueError(f"{listen!r} is no address: it must be HOST:PORT, with port 0 for a free one")
    return host, int(port)


def _bound(server: grpc.aio.Server, host: str, port: int) -> str:
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise ServeError(
            f"cannot listen on {host}:{port}: another server holds the port, or the host is not here"
        ) from error
    return f"{host}:{bound}"
