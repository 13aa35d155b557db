"""Passes calls about sagas that another orchestrator runs on to it, so that any of them answers any call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import grpc
import structlog
from google.rpc import status_pb2

from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from amends_server.config import PASSED_ON_BYTES_MAX, TAKEOVER_S
from amends_server.errors import NotOwned, OwnerLost
from amends_server.service.callers import CALLER, Callers, principal
from amends_server.service.fields import read_key
from amends_server.service.underway import RequestsUnderWay
from amends_server.status import PeerRefused, abort, reason_of, report
from amends_server.store.leases import Ownership
from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Metadata = Iterable[tuple[str, str | bytes]]

log = structlog.stdlib.get_logger(__name__)

FORWARDED = "amends-forwarded"
"""Marks a call that was passed on once, so that two orchestrators that disagree do not pass it to and fro."""

AGAIN_S = 0.1
"""Until the owner of a saga is looked up again, when it was not where it was thought to be."""

SAY_S = 0.5
"""Before the caller's deadline it is said that nobody owns the saga, so that the caller knows that nothing was done."""

LOOK_S = 0.5
"""How often it is looked, while an owner is asked, whether it still is the owner."""

_ORCHESTRATOR = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"].full_name
_OPERATOR = operator_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name

START = f"/{_ORCHESTRATOR}/StartSaga"
CANCEL = f"/{_ORCHESTRATOR}/CancelSaga"


def operator_method(name: str) -> str:
    """Return the full name of a method of OperatorService."""
    return f"/{_OPERATOR}/{name}"


COMPLETE = f"/{_ORCHESTRATOR}/CompleteStep"

_REPEATABLE = frozenset({START, CANCEL, operator_method("PauseSaga"), operator_method("ResumeSaga")})
"""What may be asked again when nobody knows whether it was done: it is done once."""

_PASSED_ON = _REPEATABLE | {
    COMPLETE,
    *(operator_method(name) for name in ("RetrySaga", "ResolveStep", "FailSaga")),
}
"""What only a saga's owner can do. What is only read, everybody reads from the store; the bulk forms pass on what they
do to each saga."""


def _is_repeatable(method: str, request: Any) -> bool:
    if isinstance(request, orchestrator_pb2.CompleteStepRequest):  # each system error that is said counts as an attempt
        return request.reply.status != saga_pb2.REPLY_STATUS_SYSTEM_ERROR
    return method in _REPEATABLE


class _Moved(Exception):
    """Somebody else owns the saga by now, or nobody."""


class _NotThere(Exception):
    """There is no connection to the owner, so that nothing was sent."""


@dataclass(frozen=True, slots=True)
class Here:
    """This process is to answer. `in_doubt`: the owner before may have done it, but its answer is lost."""

    key: SagaKey
    in_doubt: bool

    @contextmanager
    def answering(self) -> Generator[None]:
        """Do it inside of the block. What is refused now says nothing of what was done before.

        :raises OwnerLost: instead of what is raised inside, if it may have been done.
        """
        try:
            yield
        except Exception as error:
            if not self.in_doubt:
                raise
            raise OwnerLost(self.key.namespace, self.key.saga_id) from error


class _Doubtful:
    """The context of a call that may have been done: it is refused with that."""

    def __init__(self, context: Context, key: SagaKey) -> None:
        self._context = context
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, *status: object) -> NoReturn:
        await abort(self._context, OwnerLost(self._key.namespace, self._key.saga_id))


class Peers(grpc.aio.ServerInterceptor):
    """The other orchestrators. As an interceptor it passes unary calls on; sessions ask it for each start."""

    def __init__(self, ownership: Ownership, options: list[tuple[str, int]], secret: bytes) -> None:
        self._ownership = ownership
        self._options = options
        self._callers = Callers(secret)
        self.forwarded: Counter[tuple[str, str]] = Counter()
        """Calls that were passed on, by the name of the method and what came back: answered, refused or lost."""

        self._under_way = RequestsUnderWay("bytes of calls that are passed on", PASSED_ON_BYTES_MAX)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._missed = set[str]()
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._parting = False

    def part(self) -> None:
        """Wait for no owner any more: who asks is told to go elsewhere while there is time to say so."""
        self._parting = True

    async def close(self) -> None:
        """Let go of all connections."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is not None and method in _PASSED_ON:
                handler = self._handlers[method] = self._passing_on(method, handler)
        return handler

    def _passing_on(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        do: Any = handler.unary_unary
        serializer: Any = handler.response_serializer

        def serialize(response: Any) -> bytes:
            serialized: bytes = response if isinstance(response, bytes) else serializer(response)
            return serialized

        return grpc.unary_unary_rpc_method_handler(
            partial(self._handle, do, method), handler.request_deserializer, serialize
        )

    async def _handle(
        self, do: Callable[[Any, Context], Awaitable[Any]], method: str, request: Any, context: Context
    ) -> Any:
        if request.saga_id:
            try:
                answer = await self._pass_on(method, request, context)
            except Exception as error:
                await abort(context, error, report(method, request, error))
            if isinstance(answer, bytes):
                return answer
            if answer.in_doubt:
                return await do(request, cast("Context", _Doubtful(context, answer.key)))
        return await do(request, context)

    async def _pass_on(self, method: str, request: Any, context: Context) -> bytes | Here:
        key, metadata = read_key(request.namespace, request.saga_id), context.invocation_metadata()
        if _was_forwarded(metadata):
            self._callers.believe(metadata, method, key)
            return Here(key, False)
        if self._is_ours(key):
            return Here(key, False)
        with self._under_way.taking(request):
            return await self.ask(method, key, request, principal(context), metadata, context.time_remaining())

    async def start(
        self, request: orchestrator_pb2.StartSagaRequest, caller: str, metadata: Metadata | None
    ) -> bool | Here:
        """Have the saga's owner start it, and tell whether it is new, unless this process is to do it.

        :raises PeerRefused, NotOwned, OwnerLost: as for `ask`.
        """
        key = read_key(request.namespace, request.saga_id)
        asked = orchestrator_pb2.StartSagaRequest()
        asked.CopyFrom(request)
        asked.wait = False
        answer = await self.ask(START, key, asked, caller, metadata)
        return answer if isinstance(answer, Here) else orchestrator_pb2.StartSagaResponse.FromString(answer).created

    async def ask(
        self,
        method: str,
        key: SagaKey,
        request: Any,
        caller: str,
        metadata: Metadata | None,
        left_s: float | None = None,
    ) -> bytes | Here:
        """Have the saga's owner answer, and return its response as bytes, unless this process is to answer.

        While nobody owns it, or its owner hands it over, this waits for the one who gets it, but not for so long that
        the caller, who waits for `left_s`, gets no answer.

        :raises PeerRefused: with what the owner says.
        :raises NotOwned: if nobody took it over who could be reached, and nothing was done.
        :raises OwnerLost: if the answer was lost, so that nobody knows what was done.
        """
        said: list[tuple[str, str | bytes]] = [
            (FORWARDED, "1"),
            self._callers.name(caller, method, key),
            *_passed_on(metadata),
        ]
        repeatable, lost = _is_repeatable(method, request), False
        loop = asyncio.get_running_loop()
        end = loop.time() + (TAKEOVER_S if left_s is None else min(TAKEOVER_S, left_s - SAY_S))
        while not self._is_ours(key):
            address = self._ownership.address_of(key)
            try:
                if address:
                    answer = await self._ask_at(address, method, key, request, said, repeatable)
                    self._count(method, "answered")
                    return answer
            except _Moved:
                lost = True
                continue
            except _NotThere:
                pass  # it comes back, or somebody takes its sagas over
            except grpc.aio.AioRpcError as error:
                status = _said(error)
                self._count(method, "lost" if status is None else "refused")
                if not _again(error, status, repeatable):
                    with Here(key, lost).answering():
                        raise _refusal(key, error, status) from error
                lost = lost or _may_be_done(status, request)
            if self._parting or loop.time() > end:
                raise (OwnerLost if lost else NotOwned)(key.namespace, key.saga_id)
            await asyncio.sleep(AGAIN_S)
        return Here(key, lost)

    def _is_ours(self, key: SagaKey) -> bool:
        return self._ownership.epoch_of(key) != 0

    def _count(self, method: str, outcome: str) -> None:
        self.forwarded[method.rpartition("/")[2], outcome] += 1

    async def _ask_at(
        self, address: str, method: str, key: SagaKey, request: Any, metadata: Metadata, repeatable: bool
    ) -> bytes:
        """Have the owner at that address answer, if it stays the owner: one that hangs may never answer."""
        channel = await self._connected(address)
        answer = asyncio.ensure_future(self._call(channel, method, request, metadata))
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=LOOK_S)
                if not answer.done() and repeatable and self._ownership.address_of(key) != address:
                    raise _Moved
            return await answer
        finally:
            answer.cancel()

    async def _connected(self, address: str) -> grpc.aio.Channel:
        """Return a channel to whoever is there, so that a call to one that is not is known not to be sent."""
        channel = self._channel(address)
        try:
            if address == self._ownership.address:  # it would come back
                raise TimeoutError
            if channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
                await asyncio.wait_for(channel.channel_ready(), AGAIN_S)
        except TimeoutError:
            if address not in self._missed:
                log.warning("owner_not_reached", address=address, own_address=self._ownership.address)
            self._missed.add(address)
            raise _NotThere from None
        self._missed.discard(address)
        return channel

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=self._options)
        return self._channels[address]

    async def _call(self, channel: grpc.aio.Channel, method: str, request: Any, metadata: Metadata) -> bytes:
        unary: Any = channel.unary_unary  # its types know nothing of responses that are left as bytes
        call = unary(method, request_serializer=_serialize, response_deserializer=None)
        response: bytes = await call(request, metadata=tuple(metadata))
        return response


def _said(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """Return what the other orchestrator itself has said; None if it was the transport."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _serialize(request: Any) -> bytes:
    serialized: bytes = request.SerializeToString()
    return serialized


def _again(error: grpc.aio.AioRpcError, said: status_pb2.Status | None, repeatable: bool) -> bool:
    """Tell whether the owner is to be looked up again: it was another one, or it is gone and repeating does no harm."""
    if said is not None:
        reason = reason_of(said)
        return reason in ("NOT_OWNED", "SHUTTING_DOWN") or (reason == "OWNER_LOST" and repeatable)
    return error.code() is grpc.StatusCode.UNAVAILABLE and repeatable


def _may_be_done(said: status_pb2.Status | None, request: Any) -> bool:
    """Tell whether the call may have been done though it is asked again; one that ends while it waits has done it."""
    reason = "OWNER_LOST" if said is None else reason_of(said)
    return reason == "OWNER_LOST" or (reason == "SHUTTING_DOWN" and getattr(request, "wait", False))


def _refusal(key: SagaKey, error: grpc.aio.AioRpcError, said: status_pb2.Status | None) -> Exception:
    return PeerRefused(error.code(), said) if said is not None else OwnerLost(key.namespace, key.saga_id)


def _passed_on(metadata: Metadata | None) -> list[tuple[str, str | bytes]]:
    """What the caller said of itself, without what belongs to its connection."""
    own = (":", "grpc-", "user-agent", FORWARDED, CALLER)
    return [(name, value) for name, value in metadata or () if not name.startswith(own)]


def _was_forwarded(metadata: Metadata | None) -> bool:
    return any(name == FORWARDED for name, _ in metadata or ())
