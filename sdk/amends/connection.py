"""The way to an orchestrator: a channel, calls with deadlines, and retries of what may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import grpc
import tenacity

from amends._proxies import proxy_options
from amends._starts import Ending, NoSessions, Starts
from amends._tasks import is_cancelled
from amends.errors import AmendsError, Cancelled, RpcError, Unavailable
from amends.statuses import exception_of, undecodable
from amends.v1 import operator_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

RETRY_WAIT_S_MAX = 1.0  # as soon as this after an orchestrator is back, its clients are too
RETRY_WAIT_S_FIRST = 0.05

# A gRPC server that stops says CANCELLED to calls that it has not looked at. What we cancel ourselves is no RpcError.
PASSING: tuple[type[RpcError], ...] = (Unavailable, Cancelled)

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    # A stopped peer would be noticed only after a minute by keepalive alone: the timeout of the ping counts too.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # By default a channel goes on failing for seconds after its peer is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A saga comes with the inputs and outputs of all steps; how large these may be is the orchestrator's to say.
    ("grpc.max_receive_message_length", -1),
    # Two clients of a process that share a connection would also share its failures.
    ("grpc.use_local_subchannel_pool", 1),
)


class Page(Protocol):
    """An answer that may have more to follow."""

    @property
    def next_page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """An open channel with the services on it. `timeout_s` is for a call, `retry_s` for waits between repetitions."""

    channel: grpc.aio.Channel
    orchestrator: orchestrator_pb2_grpc.OrchestratorServiceStub
    operator: operator_pb2_grpc.OperatorServiceStub
    starts: Starts
    namespace: str
    timeout_s: float
    retry_s: float

    @classmethod
    def open(cls, target: str, *, namespace: str, timeout_s: float, retry_s: float) -> Self:
        channel = grpc.aio.insecure_channel(target, options=[*CHANNEL_OPTIONS, *proxy_options(target)])
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        return cls(
            channel,
            orchestrator,
            operator_pb2_grpc.OperatorServiceStub(channel),
            Starts(orchestrator, timeout_s),
            namespace,
            timeout_s,
            retry_s,
        )

    async def close(self) -> None:
        await self.starts.close()
        await self.channel.close()

    async def start(self, request: orchestrator_pb2.StartSagaRequest) -> Ending | None:
        """Start a saga; return where its end will be told, None if that has to be asked for.

        :raises RpcError: if it does not succeed.
        """
        with naming_saga(request.saga_id):
            try:
                return await self._start(request)
            except PASSING:  # the same id makes a repetition harmless
                return await self.retrying(lambda: self._start(request))

    async def _start(self, request: orchestrator_pb2.StartSagaRequest) -> Ending | None:
        if self.starts.takes(request):
            try:
                return await self.starts.start(request)
            except NoSessions:
                pass
        await self.once(self.orchestrator.StartSaga, request)
        return None

    async def once(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a call that may not be repeated.

        :raises RpcError: if it does not succeed.
        """
        try:
            with told_if_closed():
                response = cast("Response | None", await method(request, timeout=timeout_s or self.timeout_s))
        except grpc.aio.AioRpcError as error:
            raise exception_of(error) from None
        if response is None:
            raise undecodable()
        return response

    async def repeatable(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a call that may be repeated: it is, while the orchestrator is not there.

        :raises RpcError: if it does not succeed.
        """
        return await self.retrying(lambda: self.once(method, request, timeout_s))

    async def retrying(self, call: Callable[[], Awaitable[T]], *, on: tuple[type[RpcError], ...] = PASSING) -> T:
        """Repeat something while it raises one of `on`, with growing and random waits of `retry_s` together."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(on),
            wait=tenacity.wait_random_exponential(multiplier=RETRY_WAIT_S_FIRST, max=RETRY_WAIT_S_MAX),
            stop=lambda state: state.idle_for >= self.retry_s,  # a call may have gone well for long before it failed
            reraise=True,
        )

        async def attempt() -> T:  # tenacity awaits coroutine functions only, not whatever returns an awaitable
            return await call()

        return await retrying(attempt)


class Connected:
    """What has a connection to an orchestrator while it is open."""

    _namespace: str
    _open: Connection | None

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise AmendsError("The client is not open: use it as `async with Client(…) as client`.")
        return self._open


@contextmanager
def told_if_closed() -> Generator[None, None, None]:
    """Raise AmendsError where grpc.aio cancels whoever waits for a call whose channel is closed."""
    try:
        yield
    except grpc.aio.UsageError as error:
        raise AmendsError("The client is closed.") from error
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise AmendsError("The client is closed.") from None


@contextmanager
def naming_saga(saga_id: str) -> Generator[None, None, None]:
    """Have exceptions name the saga that was to be started: it may have been, and can be asked for by its id."""
    try:
        yield
    except AmendsError as error:
        error.saga_id = saga_id
        error.args = (f"{error} (saga {saga_id})", *error.args[1:])
        raise


PageT = TypeVar("PageT", bound=Page)


async def pages(fetch: Callable[[str], Awaitable[PageT]]) -> AsyncGenerator[PageT, None]:
    """All pages of a list; `fetch` gets the token of each."""
    token = ""
    while True:
        page = await fetch(token)
        yield page
        token = page.next_page_token
        if not token:
            return
