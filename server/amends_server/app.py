"""Puts the server together, starts it, and stops it so that nothing is left half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from amends._unreadable import UnreadableRefused
from amends.v1 import operator_pb2, operator_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc
from amends_server.addresses import is_allowed, parse_address
from amends_server.clock import SystemClock
from amends_server.config import POSTGRES_SCHEMES, SAGAS_ACTIVE_MAX, Settings, without_password
from amends_server.errors import AddressNotAllowed, RequestUnreadable
from amends_server.parts import Parts
from amends_server.ports import who_listens, why_not
from amends_server.service.peers import Peers
from amends_server.status import abort
from amends_server.store.leases import Ownership
from amends_server.store.memory import MemoryStore
from amends_server.store.migration import is_new
from amends_server.store.protocol import Store, StoreLocked, Unavailable
from amends_server.store.sqlite import SqliteStore
from amends_server.transport.endpoint import OVERHEAD_BYTES, Endpoint
from amends_server.transport.links import Transport

if TYPE_CHECKING:
    from amends_server.metrics import Metrics, Readings
    from amends_server.store.postgres.store import PostgresStore

HEALTH_INTERVAL_S = 5.0
"""How often the store is tried: a probe of a load balancer comes about as often."""

STOP_S = 1.0
"""How long requests under way may take once all is recorded; a watcher that reads nothing would stay for ever."""

REQUEST_BYTES_MIN = 4 << 20
"""A request may be this large, even if payloads may not: definitions can have thousands of steps."""

SERVICES = (
    orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"].full_name,
    operator_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name,
)

log = structlog.stdlib.get_logger(__name__)


class StartError(Exception):
    """The server cannot be started. The text says why, and what to do."""


class Server:
    """A running orchestrator. `address` is where it listens, with the port that was taken."""

    def __init__(self, settings: Settings, store: Store, ownership: Ownership, secret: bytes) -> None:
        clock, payload_bytes_max = SystemClock(), settings.payload_bytes_max
        allows = cache(partial(is_allowed, patterns=settings.participant_allow))
        self._settings = settings
        self._store = store
        self._ownership = ownership
        self._peers = Peers(ownership, _channel_options(), secret)
        self._parts = Parts(
            store=store,
            transport=lambda late: Transport(clock, payload_bytes_max, allows=allows, late=late),
            clock=clock,
            ownership=ownership,
            secret=secret,
            fixed=[Endpoint(name, p.address, p.concurrency_max) for name, p in settings.participants.items()],
            allows=allows,
            active_max=SAGAS_ACTIVE_MAX,
            payload_bytes_max=payload_bytes_max,
            peers=self._peers,
        )
        self.participants = self._parts.participants
        self._health = health.aio.HealthServicer()
        self._grpc = grpc.aio.server(
            interceptors=(UnreadableRefused(_refuse_unreadable), self._peers),
            options=_server_options(settings.payload_bytes_max),
        )
        self.address = ""
        self._metrics: Metrics | None = None

    async def start(self) -> None:
        """Listen, and go on with what the last process left."""
        await self._parts.open()
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(self._parts.orchestrator, self._grpc)
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(self._parts.operator, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if self._settings.reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._grpc)
        self.address = _bind(self._grpc, self._settings.listen)
        if self._settings.metrics:
            self._metrics = _serve_metrics(self._settings.metrics, self._read)
        await self._grpc.start()
        self._keeping = asyncio.create_task(self._keep(), name="server")
        reached_at = self._settings.advertise or _reachable(self.address)
        await self._ownership.start(reached_at, self._parts.take_over, self._parts.runner.busy)
        await self._say_ready(True)
        shown = {"metrics": self.metrics_address} if self._metrics is not None else {}
        log.info("listening", address=self.address, store=without_password(self._settings.store), **shown)

    @property
    def metrics_address(self) -> str:
        """Where figures are served, empty if they are not."""
        return str(self._metrics.address) if self._metrics is not None else ""

    def _read(self) -> Readings:
        from amends_server.metrics import Readings

        return Readings(
            partitions_owned=self._parts.owned,
            partitions_gained=self._parts.gained,
            renewals=self._ownership.renewals,
            sagas_active=self._parts.runner.active_count,
            sagas_taken_over=self._parts.taken_over,
            calls_forwarded=dict(self._peers.forwarded),
        )

    async def broken(self) -> None:
        """Return never, unless a loop that keeps sagas going has failed: then raise what it raised."""
        await asyncio.shield(self._keeping)

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._parts.run(), name="keeper")
            loops.create_task(self._watch_health(), name="health")

    async def stop(self) -> None:
        """Take nothing new, let calls in flight end and record them, then let go of everything."""
        self._parts.hold()
        log.info("stopping", sagas=self._parts.runner.active_count)
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await self._say_ready(False)
        await self._parts.settle(self._settings.drain_s)
        self._parts.part()
        self._peers.part()
        await self._grpc.stop(STOP_S)
        await self._parts.close()
        await self._ownership.stop()
        await self._peers.close()
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        log.info("stopped")

    async def _watch_health(self) -> None:
        """Say SERVING as long as the store takes writes."""
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            try:
                await self._store.check()
            except Unavailable as error:
                log.warning("store_unavailable", error=str(error))
                await self._say_ready(False)
            else:
                await self._say_ready(True)

    async def _say_ready(self, ready: bool) -> None:
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if ready else answer.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[Server]:
    """Run a server inside of the block, and drain it at its end.

    :raises StartError: if the address or the store cannot be had.
    """
    async with AsyncExitStack() as stack:
        store = make_store(settings)
        stack.push_async_callback(store.close)
        try:
            await store.open()
            server = Server(settings, store, await store.own(), await store.secret())
            await server.start()
        except StoreLocked as error:
            raise StartError(f"{error} Stop it, or choose another file with --store sqlite:///PATH.") from error
        except (Unavailable, AddressNotAllowed) as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(server.stop)
        yield server


async def begin_incarnation(settings: Settings) -> int:
    """Note that the store was restored from a backup, and return the epoch from which it goes on.

    :raises StartError: if the store cannot be had, or holds nothing that could have been restored.
    """
    store = make_store(settings)
    try:
        if isinstance(store, MemoryStore) or is_new(await store.pending()):
            raise StartError(
                f"There is nothing in the store {without_password(settings.store)}, so it was not restored from a "
                "backup: name the one that was with --store."
            )
        await store.open()
        return await store.begin_incarnation(SystemClock().now())
    except StoreLocked as error:
        raise StartError(f"{error} Stop it first.") from error
    except Unavailable as error:
        raise StartError(str(error)) from error
    finally:
        await store.close()


async def _refuse_unreadable(context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await abort(context, RequestUnreadable())


def make_store(settings: Settings) -> MemoryStore | SqliteStore | PostgresStore:
    """Return the store that the settings name, which is not open yet.

    :raises StartError: if what it needs is not installed.
    """
    if settings.store == "memory:":
        return MemoryStore()
    if settings.store.startswith(POSTGRES_SCHEMES):
        return _make_postgres_store(settings)
    return SqliteStore(Path(settings.store.removeprefix("sqlite:///")), settings.listen)


def _make_postgres_store(settings: Settings) -> PostgresStore:
    try:
        from amends_server.store.postgres.store import PostgresStore
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise StartError(
            "A PostgreSQL store needs asyncpg, which is not installed: pip install amends[postgres]."
        ) from None
    return PostgresStore(settings.store, settings.lease_s)


def _serve_metrics(listen: str, read: Callable[[], Readings]) -> Metrics:
    try:
        from amends_server.metrics import Metrics
    except ModuleNotFoundError as missing:
        if missing.name != "prometheus_client":
            raise
        raise StartError(
            "The setting metrics needs prometheus-client, which is not installed: pip install amends[metrics]."
        ) from None
    try:
        return Metrics(parse_address(listen, port_min=0), read)
    except OSError as error:
        raise StartError(
            f"Figures cannot be served at {listen}: {error.strerror}. Choose another address in the setting metrics."
        ) from error


def _bind(server: grpc.aio.Server, listen: str) -> str:
    address = parse_address(listen, port_min=0)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if port == 0:
        if not (holder := who_listens(address.port)) and (reason := why_not(address.host, address.port)):
            raise StartError(
                f"Nothing can listen at {listen} ({reason}): choose another address with --listen HOST:PORT."
            )
        holder = holder or "another program"
        raise StartError(f"{listen} is taken by {holder}: stop it, or choose another address with --listen HOST:PORT.")
    return f"{address.host}:{port}"


def _reachable(address: str) -> str:
    """Return where others reach what listens there: not at an address that stands for all of a machine's."""
    parsed = parse_address(address)
    return f"{gethostname()}:{parsed.port}" if parsed.host in ("0.0.0.0", "[::]") else address  # noqa: S104


def _channel_options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", 500),  # an orchestrator that was started again is found at once
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
    ]


def _server_options(payload_bytes_max: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second server would silently share the port
        ("grpc.max_receive_message_length", max(REQUEST_BYTES_MIN, payload_bytes_max + OVERHEAD_BYTES)),
        ("grpc.max_send_message_length", -1),  # a saga is shown with all that it carries
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),  # clients may ask often whether we are alive
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
    ]
