"""What a server does while its store fails or is slow: with a store that does so when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from amends import Client, SagaStatus
from amends.errors import Unavailable as CallUnavailable
from amends.v1 import definition_pb2, orchestrator_pb2, orchestrator_pb2_grpc
from amends_server.app import Server
from amends_server.config import load_settings
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import Append, SagaKey, StoredSaga, StoreError, Unavailable
from tests.acceptance.harness import Gate, Ledger, ScriptedParticipant, definition, refusal_of, refuse, step, succeed


class FailingStore(MemoryStore):
    """A store that takes no writes while `failing`, and holds what is asked of it at the gates that are set."""

    failing = False
    commits: Gate | None = None
    reads: Gate | None = None
    scans: Gate | None = None

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        if self.failing:
            raise Unavailable("The store fails on purpose.")
        if self.commits is not None:
            await self.commits.hold()
        return await super().commit(appends)

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        if self.reads is not None:
            await self.reads.hold()
        return await super().get_saga(key)

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        if self.scans is not None:
            await self.scans.hold()
        return await super().list_unfinished(after, limit, within)


@asynccontextmanager
async def running(store: FailingStore) -> AsyncIterator[Server]:
    """A server on the store; at the end of the block it is stopped, without time for calls in flight."""
    await store.open()
    settings = load_settings(listen="127.0.0.1:0", store="memory:", drain_s=0)
    server = Server(settings, store, await store.own(), await store.secret())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[ScriptedParticipant]:
    async with AsyncExitStack() as stack:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        stack.callback(ledger.close)
        participant = ScriptedParticipant("worker", ledger)
        await participant.start()
        stack.push_async_callback(participant.close)
        yield participant


async def register(client: Client, worker: ScriptedParticipant, made: definition_pb2.Definition) -> None:
    await client.put_participant("worker", worker.address)
    await client.register(made)


async def test_a_start_that_failed_is_unavailable_also_when_it_is_repeated(worker: ScriptedParticipant) -> None:
    store = FailingStore()
    async with (
        running(store) as server,
        Client(server.address) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        await register(client, worker, definition("d", "one"))
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        request = orchestrator_pb2.StartSagaRequest(saga_id="s", definition=orchestrator_pb2.DefinitionRef(name="d"))
        store.failing = True
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.StartSaga(request)
            assert refusal_of(caught.value).code is grpc.StatusCode.UNAVAILABLE
            assert refusal_of(caught.value).reason == "STORE_UNAVAILABLE"
        assert worker.ledger.calls() == []
        store.failing = False
        saga = await client.start("d", None, id="s", wait=True)
        assert (await saga.status()).status is SagaStatus.COMPLETED
        assert worker.ledger.effects("s") == ["one"]


async def test_a_client_that_repeats_its_start_gets_through_an_outage(worker: ScriptedParticipant) -> None:
    store = FailingStore()
    async with running(store) as server, Client(server.address) as client:
        await register(client, worker, definition("d", "one"))
        store.failing = True
        async with Client(server.address, retry_for=0.2) as hasty:
            with pytest.raises(CallUnavailable):
                await hasty.start("d", None, id="s")
        start = asyncio.create_task(client.start("d", None, id="s"))
        await asyncio.wait([start], timeout=0.2)
        store.failing = False
        assert (await (await start).wait()).status is SagaStatus.COMPLETED
    assert worker.ledger.names("s") == ["one"]


async def test_what_the_last_process_sent_is_never_taken_for_unsent(worker: ScriptedParticipant) -> None:
    """The first attempt had its effect and its answer is lost; that the second is refused says nothing of the first."""
    store, gate = FailingStore(), Gate()
    worker.on("two", gate.after(), refuse("NO_MORE"))
    async with running(store) as server, Client(server.address) as client:
        await register(client, worker, definition("d", "one", step("two", attempts=5)))
        await client.start("d", None, id="s")
        await gate.reached()
        store.failing = True
    async with running(store) as server, Client(server.address, retry_for=0.01) as client:
        with pytest.raises(CallUnavailable):  # the saga is read, but nothing can be recorded of it
            await client.saga(None, "s").cancel("nobody records it")
        store.failing = False
        assert (await client.saga(None, "s").wait()).status is SagaStatus.COMPENSATED
    assert [call.attempt for call in worker.ledger.calls("s", "two")] == [1, 2]
    assert worker.ledger.effects("s") == []
    gate.release()


async def leave_behind(store: FailingStore, worker: ScriptedParticipant) -> None:
    """Have a server start a saga and be gone while its first step runs."""
    gate = Gate()
    worker.on("one", gate.before(), succeed())
    async with running(store) as server, Client(server.address) as client:
        await register(client, worker, definition("d", "one", "two"))
        await client.start("d", None, id="s")
        await gate.reached()
    gate.release()


async def test_a_start_that_is_repeated_while_its_saga_is_read_waits_for_it(worker: ScriptedParticipant) -> None:
    store = FailingStore()
    await leave_behind(store, worker)
    store.reads, store.commits = Gate(), Gate()
    async with running(store) as server, Client(server.address) as client:
        await store.reads.reached()  # by the recovery
        repeated = asyncio.create_task(client.start("d", None, id="s"))
        await asyncio.wait([repeated], timeout=0.2)  # it may get between the reading and what follows from it
        store.reads.release()
        await asyncio.wait([repeated], timeout=0.2)
        store.commits.release()
        assert (await (await repeated).wait()).status is SagaStatus.COMPLETED
    assert [call.attempt for call in worker.ledger.calls("s", "one")] == [1, 2]
    assert worker.ledger.effects("s") == ["one", "two"]


async def test_a_start_that_is_repeated_before_the_recovery_does_not_hide_its_saga(worker: ScriptedParticipant) -> None:
    store = FailingStore()
    await leave_behind(store, worker)
    store.scans, store.commits = Gate(), Gate()
    async with running(store) as server, Client(server.address) as client:
        await store.scans.reached()
        repeated = asyncio.create_task(client.start("d", None, id="s"))
        await store.commits.reached()  # by the repeated start, of which nobody knows yet that it is one
        store.scans.release()
        await asyncio.wait([repeated], timeout=0.2)  # the recovery may look at the saga now
        store.commits.release()
        assert (await (await repeated).wait()).status is SagaStatus.COMPLETED
    assert worker.ledger.effects("s") == ["one", "two"]
