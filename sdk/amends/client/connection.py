"""The way to an orchestrator: a channel, calls with deadlines, and retries of what may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import grpc
import tenacity

from amends._tasks import is_cancelled
from amends.client._replicas import Replica, Replicas
from amends.client._starts import Ending, NoSessions
from amends.errors import AmendsError, Cancelled, DeadlineExceeded, RpcError, Unavailable
from amends.ids import new_saga_id
from amends.statuses import exception_of, undecodable
from amends.v1 import operator_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

RETRY_WAIT_S_MAX = 1.0  # as soon as this after an orchestrator is back, its clients are too
RETRY_WAIT_S_FIRST = 0.05
_WAIT = tenacity.wait_random_exponential(multiplier=RETRY_WAIT_S_FIRST, max=RETRY_WAIT_S_MAX)

# A gRPC server that stops says CANCELLED to calls that it has not looked at. What we cancel ourselves is no RpcError.
PASSING: tuple[type[RpcError], ...] = (Unavailable, Cancelled)

# What orchestrators say of a call with which nothing was done, so that it can be made again.
_NOT_BEGUN = ("NOT_OWNED", "SHUTTING_DOWN")

# And what they say when another one, who had to do it, did not answer them in time.
_ELSEWHERE = ("NOT_OWNED", "OWNER_LOST")


class Page(Protocol):
    """An answer that may have more to follow."""

    @property
    def next_page_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """Open channels with the services on them. `timeout_s` is for a call, `retry_s` for waits between repetitions."""

    replicas: Replicas
    orchestrator: orchestrator_pb2_grpc.OrchestratorServiceStub
    operator: operator_pb2_grpc.OperatorServiceStub
    namespace: str
    timeout_s: float
    retry_s: float

    @classmethod
    def open(cls, target: str, *, namespace: str, timeout_s: float, retry_s: float) -> Self:
        """Open a connection to the orchestrator at HOST:PORT, or to several that share a database, with commas between.

        :raises ValueError: if an address is empty.
        """
        replicas = Replicas(target, timeout_s)
        return cls(
            replicas,
            orchestrator_pb2_grpc.OrchestratorServiceStub(replicas.channel),
            operator_pb2_grpc.OperatorServiceStub(replicas.channel),
            namespace,
            timeout_s,
            retry_s,
        )

    @property
    def channel(self) -> grpc.aio.Channel:
        """For stubs of other services."""
        return self.replicas.channel

    async def close(self) -> None:
        await self.replicas.close()

    async def start(self, request: orchestrator_pb2.StartSagaRequest) -> Ending | None:
        """Start a saga; return where its end will be told, None if that has to be asked for.

        A request without an id gets one before it is sent, so that it can be repeated, and that the first one who is
        asked runs the saga itself, if it has said which sagas it runs.

        :raises RpcError: if it does not succeed.
        """
        replica = self._at_hand()
        if not request.saga_id:
            request.saga_id = new_saga_id() if replica is None else replica.starts.new_id(request.namespace)
        try:
            try:
                return await self._start(request, replica)
            except RpcError as error:
                if not self.passes(error):
                    raise
                first = error
            again = self.retrying(lambda: self._start(request), before=first)  # the same id makes that harmless
            return await again
        except AmendsError as error:
            name_saga(error, request.saga_id)
            raise

    async def _start(self, request: orchestrator_pb2.StartSagaRequest, replica: Replica | None = None) -> Ending | None:
        assert request.saga_id, "without one a start that is repeated would begin a second saga"
        with told_if_closed():
            replica = replica or self.replicas.at_hand() or await self.replicas.chosen()
            if replica.starts.takes(request):
                try:
                    return await replica.starts.start(request)
                except NoSessions:
                    pass
                except (Unavailable, DeadlineExceeded) as error:
                    replica.answered(error.code)
                    raise
        await self._call(self.orchestrator.StartSaga, request, None)
        return None

    def _at_hand(self) -> Replica | None:
        try:
            return self.replicas.at_hand()
        except grpc.aio.UsageError as error:
            raise AmendsError("The client is closed.") from error

    async def once(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float | None = None,
    ) -> Response:
        """Make a call that may not be repeated, unless it is certain that nothing was done.

        :raises RpcError: if it does not succeed.
        """
        try:
            return await self._call(method, request, timeout_s)
        except Unavailable as error:
            if not _not_begun(error):
                raise
        return await self.retrying(lambda: self._call(method, request, timeout_s), passes=_not_begun)

    async def repeatable(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """Make a call that may be repeated: it is, while no orchestrator is there.

        :raises RpcError: if it does not succeed.
        """
        return await self.retrying(lambda: self._call(method, request, None))

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout_s: float | None
    ) -> Response:
        try:
            with told_if_closed():
                response = cast("Response | None", await method(request, timeout=timeout_s or self.timeout_s))
        except grpc.aio.AioRpcError as error:
            raise exception_of(error) from None
        if response is None:
            raise undecodable()
        return response

    async def retrying(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        passes: Callable[[BaseException], bool] | None = None,
        before: RpcError | None = None,
    ) -> T:
        """Repeat something while its errors pass, with growing and random waits of `retry_s` together.

        By default those of an orchestrator that is not there do. Each is tried once before there is a wait. `before`:
        how it ended when it was tried before. Who says in the end that it was not begun speaks for the last try alone:
        where an earlier one may have been done, its error is raised.
        """
        unsure = None if before is None or _not_begun(before) else before
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(passes or self.passes),
            wait=lambda state: 0 if state.attempt_number < len(self.replicas) else _WAIT(state),
            stop=lambda state: state.attempt_number >= len(self.replicas) and self._patience_ends(state),
            reraise=True,
        )

        async def attempt() -> T:  # tenacity awaits coroutine functions only, not whatever returns an awaitable
            nonlocal unsure
            try:
                return await call()
            except RpcError as error:
                unsure = unsure if _not_begun(error) else error
                raise

        try:
            return await retrying(attempt)
        except Unavailable as error:
            if unsure is None or not _not_begun(error):
                raise
            raise unsure from error

    def passes(self, error: BaseException) -> bool:
        """Tell whether a call may go well elsewhere or later: where one does not answer in time, another one may."""
        return isinstance(error, PASSING) or (isinstance(error, DeadlineExceeded) and len(self.replicas) > 1)

    def _patience_ends(self, state: tenacity.RetryCallState) -> bool:
        """Waits count, not calls: one may have gone well for long before it failed. Of those not answered, all does.

        So it does where the orchestrator has waited for another one to answer.
        """
        error = state.outcome.exception() if state.outcome is not None else None
        waited = isinstance(error, DeadlineExceeded) or (isinstance(error, Unavailable) and error.reason in _ELSEWHERE)
        asked_s = (state.seconds_since_start or 0.0) if waited else 0.0
        return max(state.idle_for, asked_s) >= self.retry_s


def _not_begun(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and error.reason in _NOT_BEGUN


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
        name_saga(error, saga_id)
        raise


def name_saga(error: AmendsError, saga_id: str) -> None:
    """Have an exception name the saga that was to be started."""
    error.saga_id = saga_id
    error.args = (f"{error} (saga {saga_id})", *error.args[1:])


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
