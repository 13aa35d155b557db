"""A server to be fuzzed: with something of each kind in it, calls as raw bytes, and what must be true after each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from amends import Client
from amends.v1 import operator_pb2, orchestrator_pb2
from amends_server.app import Server, make_store
from amends_server.config import load_settings
from amends_server.store.protocol import SagaFilter
from tests.acceptance.harness import definition, in_progress, refuse, step
from tests.acceptance.harness_ledger import Ledger
from tests.acceptance.harness_participant import ScriptedParticipant
from tests.fuzz.asked import Asked

WAIT_S = 30.0
"""For anything that has no reason to wait."""

WATCHED_S = 0.05
"""For calls that may rightly wait for ever."""

BROKEN_HERE = "Internal error from Core"
"""What a client's own gRPC says when it writes to a stream that the server is ending: what the server said is lost."""

LOGGED_BY_GRPC = ("DecodeError", "ExecuteBatchError", "PollerCompletionQueue")
"""Responses that it cannot read, what is written to a stream that has ended, and the late end of a call whose event
loop, that of a test before, was closed meanwhile: nobody's mistake here."""

NAMESPACES = ("default", "other")

CLEAN = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""How a server that is well and has not been asked for anything else answers."""

MAY_WAIT = frozenset({"StartSaga", "GetSaga", "CancelSaga", "CompleteStep", "WatchSaga"})

SERVICES = (
    orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
    operator_pb2.DESCRIPTOR.services_by_name["OperatorService"],
)

METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods if not method.client_streaming
}

KNOWN: dict[str, Sequence[str]] = {
    "namespace": ("", "", "default", "other"),
    "saga_id": ("there", "stuck", "waiting", "paused", "new", "nobody"),
    "name": ("known", "wait", "worker", "fresh"),
    "definition": ("known",),
    "participant": ("worker",),
    "action": ("one", "two"),
    "id": ("one", "two", "three"),
    "step": ("one", "two"),
    "after": ("one", "two"),
    "requires": ("input", "input.order"),
    "codes": ("NO",),
    "reason": ("because",),
    "labels": ("k", "l", "v"),
}
"""Values by the name of their field with which calls get further than to the first check."""

ROOMY = definition("known", "one")
WAITING = definition("wait", step("one"))
STUCK = definition("stuck", step("one", undo_attempts=1), step("two"))


class Mistakes(logging.Handler):
    """Errors that the server logs, and what gRPC and asyncio log of exceptions that nobody has handled."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._logs: Any = capture_logs()

    def __enter__(self) -> Mistakes:
        self._entries = self._logs.__enter__()
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
        self._logs.__exit__(*error)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if not any(word in text for word in LOGGED_BY_GRPC):
            self.found.append(text)

    def taken(self) -> list[str]:
        """Return those since the last time."""
        found = [*self.found, *(str(entry) for entry in self._entries if entry["log_level"] in ("error", "critical"))]
        self.found.clear()
        self._entries.clear()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server, and what was logged meanwhile that must not be."""

    server: Server
    channel: grpc.aio.Channel
    mistakes: Mistakes
    asked: Asked

    async def ask(self, method: MethodDescriptor, data: bytes) -> tuple[grpc.StatusCode, str]:
        """Call a method with these bytes; return the status, and the reason that the server gives for it."""
        timeout_s = WATCHED_S if method.name in MAY_WAIT else WAIT_S
        path = f"/{method.containing_service.full_name}/{method.name}"
        try:
            if method.server_streaming:
                stream: Any = self.channel.unary_stream(path)(data, timeout=timeout_s)
                async for _ in stream:
                    pass
            else:
                await self.channel.unary_unary(path)(data, timeout=timeout_s)  # type: ignore[misc]
        except grpc.aio.AioRpcError as error:
            return error.code(), _reason(error)
        return grpc.StatusCode.OK, ""

    async def rest(self) -> None:
        """Wait until all requests are dealt with, those as well that were given up and may not have been begun yet."""
        await self.ask(METHODS["GetSaga"], b"")  # requests are begun in the order in which they come
        async with asyncio.timeout(WAIT_S):
            await self.asked.rest()

    async def stored(self) -> set[str]:
        """Everything there is, by its name, and what sagas were told to do."""
        store, found = self.server._store, set[str]()
        for namespace in NAMESPACES:
            page = await store.list_sagas(SagaFilter(namespace=namespace), None, 10_000)
            found |= {f"saga {row.key.namespace}/{row.key.saga_id}" for row in page.sagas}
            rows = await store.list_definitions(namespace, "", None, 10_000)
            found |= {f"definition {row.namespace}/{row.name}/{row.version}" for row in rows}
        return found | self.asked.events | {f"participant {each}" for each in await store.list_participants()}


class Raw:
    """A stream of bytes, one way and the other. `received` is what came back."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.received: list[bytes] = []

    async def through(self, *sent: bytes) -> grpc.StatusCode:
        """Send all that, read what comes for a moment or until the end, and return how it ended; OK if it did not."""
        reading = asyncio.create_task(self._read())
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the status says why
            for data in sent:
                await self._stream.write(data)
        await asyncio.wait([reading], timeout=WATCHED_S)
        code = await self._stream.code() if self._stream.done() else grpc.StatusCode.OK
        if code is grpc.StatusCode.INTERNAL and await self._stream.details() == BROKEN_HERE:
            code = grpc.StatusCode.OK
        self._stream.cancel()
        await asyncio.wait([reading])
        return code

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while (data := await self._stream.read()) is not grpc.aio.EOF:
                self.received.append(data)


def _reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
    return info.reason


@asynccontextmanager
async def target(store: str, folder: Path) -> AsyncGenerator[Target]:
    """Start a server with a saga that has ended, one that is stuck, one that waits, and one that is paused."""
    async with AsyncExitStack() as stack:
        mistakes = stack.enter_context(Mistakes())
        ledger = Ledger(folder / "ledger.jsonl")
        stack.callback(ledger.close)
        worker = ScriptedParticipant("worker", ledger)
        await worker.start()
        stack.push_async_callback(worker.close)
        settings = load_settings(listen="127.0.0.1:0", store=store, drain_s=0)
        opened = make_store(settings)
        stack.push_async_callback(opened.close)
        await opened.open()
        server = Server(settings, opened, await opened.own(), await opened.secret())
        asked = Asked(server, opened)
        await server.start()
        stack.push_async_callback(server.stop)
        client = await stack.enter_async_context(Client(server.address))
        await client.put_participant("worker", worker.address)
        for each in (ROOMY, WAITING, STUCK):
            await client.register(each)
        for saga_id in ("waiting", "paused"):
            worker.on("one", in_progress(), saga=saga_id)
        worker.on("two", refuse(), saga="stuck")
        worker.on("undo one", refuse(), saga="stuck")
        for saga_id, name in (("there", "known"), ("stuck", "stuck")):
            handle = await client.start(name, {"order": 7}, id=saga_id, labels={"k": "v"})
            async with asyncio.timeout(WAIT_S):
                await handle.wait()
        for saga_id in ("waiting", "paused"):
            await client.start("wait", {"order": 7}, id=saga_id)
        await client.pause("paused", reason="fuzzed")
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)])
        )
        yield Target(server=server, channel=channel, mistakes=mistakes, asked=asked)
