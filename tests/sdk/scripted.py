"""A scripted orchestrator: a real gRPC server on a real socket that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Message | bytes]]
Session = Callable[[Context], Awaitable[None]]

_SERVICES = [
    orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
    operator_pb2.DESCRIPTOR.services_by_name["OperatorService"],
]


class ScriptedOrchestrator:
    """Answers each call by what `on` says of its method; keeps the requests. What is not scripted is UNIMPLEMENTED."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self._answers: dict[str, Answer] = {}
        self._streams: dict[str, Stream] = {}
        self._session: Session | None = None
        self.address = "127.0.0.1:0"
        self._server: grpc.aio.Server | None = None

    def on(self, method: str, answer: Answer) -> None:
        self._answers[method] = answer

    def on_stream(self, method: str, stream: Stream) -> None:
        self._streams[method] = stream

    def on_session(self, session: Session) -> None:
        """Serve the sessions of clients, which are UNIMPLEMENTED otherwise; the function reads and writes."""
        self._session = session

    def returns(self, method: str, *answers: Message | bytes | grpc.StatusCode) -> None:
        """Give these answers in turn, the last one for ever."""
        left = list(answers)

        async def answer(_: Message, context: Context) -> Message | bytes:
            following = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(following, grpc.StatusCode):
                await context.abort(following, f"scripted {following.name}")
            return following

        self.on(method, answer)

    def of(self, kind: type[Message]) -> list[Any]:
        """The requests of one kind, in the order in which they came."""
        return [request for request in self.requests if isinstance(request, kind)]

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers([self._handlers(service) for service in _SERVICES])
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address)}"
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    def _handlers(self, service: Any) -> grpc.GenericRpcHandler:
        handlers = {
            method.name: self._stream_handler(method) if method.server_streaming else self._unary_handler(method)
            for method in service.methods
            if not method.client_streaming
        }
        if service.name == "OrchestratorService":
            handlers["Session"] = self._session_handler()
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _session_handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(_: Any, context: Context) -> None:
            if self._session is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "sessions are not scripted")
            await self._session(context)

        return grpc.stream_stream_rpc_method_handler(
            cast("Any", handle), orchestrator_pb2.OrchestratorServiceSessionRequest.FromString, _bytes
        )

    def _unary_handler(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(request: Message, context: Context) -> Message | bytes:
            self.requests.append(request)
            if method.name not in self._answers:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method.name} is not scripted")
            answer: Message | bytes = await self._answers[method.name](request, context)
            return answer

        return grpc.unary_unary_rpc_method_handler(cast("Any", handle), _class(method).FromString, _bytes)

    def _stream_handler(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(request: Message, context: Context) -> AsyncIterator[Message | bytes]:
            self.requests.append(request)
            async for each in self._streams[method.name](request, context):
                yield each

        return grpc.unary_stream_rpc_method_handler(cast("Any", handle), _class(method).FromString, _bytes)


@asynccontextmanager
async def scripted() -> AsyncGenerator[ScriptedOrchestrator, None]:
    """A scripted orchestrator that listens."""
    orchestrator = ScriptedOrchestrator()
    await orchestrator.start()
    try:
        yield orchestrator
    finally:
        await orchestrator.stop()


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
) -> NoReturn:
    """End a call as an orchestrator does: with details."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="amends", metadata=metadata)
    fields = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
        for field, text in (violations or {}).items()
    ]
    details = [info, *([error_details_pb2.BadRequest(field_violations=fields)] if fields else [])]
    packed = [any_pb2.Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort() does not return")


def event(sequence: int, status: int = saga_pb2.SAGA_STATUS_RUNNING, **kind: Any) -> orchestrator_pb2.WatchSagaResponse:
    """A message of WatchSaga; without a kind it is a dispatch of the step `a`."""
    kind = kind or {"step_dispatched": saga_pb2.StepDispatched(step="a", attempt=1)}
    return orchestrator_pb2.WatchSagaResponse(
        event=saga_pb2.Event(sequence=sequence, **kind), status=cast("Any", status)
    )


def last_event(sequence: int) -> orchestrator_pb2.WatchSagaResponse:
    """The message of WatchSaga that says that the saga is completed."""
    return event(sequence, saga_pb2.SAGA_STATUS_COMPLETED, saga_completed=saga_pb2.SagaCompleted())


def _class(method: Any) -> type[Message]:
    return message_factory.GetMessageClass(method.input_type)


def _bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
