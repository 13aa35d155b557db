"""Calls that wait for their turn: withdrawn when nobody wants them any more, never taken for calls that went out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from amends import Client
from amends.v1 import operator_pb2
from amends.v1 import participant_pb2 as pb
from amends_server import participants
from amends_server.transport import session, unary
from amends_server.transport.requests import Origin
from tests.acceptance.harness import InProcess, Ledger, ScriptedParticipant, Wire, definition, step
from tests.sessions.raw import WAIT_S, RawParticipant, raw


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[InProcess]:
    server = InProcess(tmp_path / "amends.db")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: InProcess) -> AsyncIterator[Client]:
    async with Client(server.address) as opened:
        yield opened


async def busy(client: Client, worker: RawParticipant) -> pb.SessionCall:
    """Have a saga take the only call that the participant takes at a time; return the call."""
    await client.put_participant("worker", worker.address, concurrency_max=1)
    await client.register(definition("d", step("one", attempts=1)))
    await client.start("d", None, id="busy")
    return await worker.call()


async def ended(client: Client, saga_id: str, status: str = "COMPLETED") -> None:
    async with asyncio.timeout(WAIT_S):
        assert (await client.saga(None, saga_id).wait()).status == status


async def kinds_of(client: Client, saga_id: str) -> list[str]:
    async with asyncio.timeout(WAIT_S):
        return [event.kind async for event in client.saga(None, saga_id).watch()]


def failing_for(saga_id: str, write: Callable[..., Any]) -> Callable[..., Any]:
    """Break the writing of one saga's calls."""

    def failing(*args: Any) -> Any:
        if any(isinstance(arg, Origin) and arg.started.saga_id == saga_id for arg in args):
            raise ValueError("secret")
        return write(*args)

    return failing


@asynccontextmanager
async def plain(folder: Path) -> AsyncGenerator[str]:
    """A participant without sessions."""
    ledger = Ledger(folder / "ledger.jsonl")
    participant = ScriptedParticipant("worker", ledger)
    await participant.start()
    try:
        yield participant.address
    finally:
        await participant.close()
        ledger.close()


async def test_i3_a_call_that_waits_for_its_turn_is_not_sent_after_the_saga_turned_back(client: Client) -> None:
    async with raw() as worker:
        first = await busy(client, worker)
        victim = await client.start("d", None, id="victim")
        await victim.cancel("changed my mind")
        await ended(client, "victim", "COMPENSATED")  # though the participant is still busy
        worker.succeed(first)
        await ended(client, "busy")
        assert worker.calls.empty()
        assert "compensation_dispatched" not in await kinds_of(client, "victim")


async def test_i3_nothing_is_sent_after_the_server_is_told_to_stop_and_what_waited_is_no_attempt(
    client: Client, server: InProcess
) -> None:
    async with raw() as worker:
        first = await busy(client, worker)
        ids = [f"s{i}" for i in range(5)]
        for saga_id in ids:
            await client.start("d", None, id=saga_id)
        stopping = asyncio.create_task(server.stop())
        worker.succeed(first)
        await asyncio.wait_for(stopping, WAIT_S)
        assert worker.calls.empty()
        await server.start()
        for _ in ids:
            call = await worker.call()
            worker.succeed(call)
        for saga_id in ids:
            await ended(client, saga_id)  # with `attempts=1`: what was not sent has not used it up
            assert "step_given_up" not in await kinds_of(client, saga_id)


async def test_a_paused_saga_sends_nothing_that_waited_until_it_is_resumed(client: Client, server: InProcess) -> None:
    async with raw() as worker, grpc.aio.insecure_channel(server.address) as channel:
        operator = Wire.on(channel).operator
        first = await busy(client, worker)
        paused = await client.start("d", None, id="paused")
        await operator.PauseSaga(operator_pb2.PauseSagaRequest(saga_id="paused", reason="wait"))
        async with asyncio.timeout(WAIT_S):
            async for event in paused.watch():
                if event.kind == "attempt_withdrawn":
                    break
        worker.succeed(first)
        await ended(client, "busy")
        assert worker.calls.empty()
        await operator.ResumeSaga(operator_pb2.ResumeSagaRequest(saga_id="paused", reason="go on"))
        worker.succeed(await worker.call())
        await ended(client, "paused")


async def test_time_runs_from_when_a_call_is_sent_not_while_the_participant_takes_none(client: Client) -> None:
    """The first call is never answered and holds the only credit for two seconds; the others may take one."""
    async with raw(call_credits=1) as worker:
        await client.put_participant("worker", worker.address)
        await client.register(definition("slow", step("one", kind="PIVOT", undo=None, attempts=1, timeout_s=2)))
        await client.register(definition("quick", step("one", kind="PIVOT", undo=None, attempts=1, timeout_s=1)))
        await client.start("slow", None, id="slow")
        await worker.call()
        for i in range(2):
            await client.start("quick", None, id=f"s{i}")
        for _ in range(2):
            call = await worker.call()
            assert call.execute.call.attempt == 1
            worker.succeed(call)
        for i in range(2):
            await ended(client, f"s{i}")
        await ended(client, "slow", "STUCK")
        assert worker.opened == 2, "a session all of whose credits are lost is opened anew, once"


async def test_a_call_that_waits_until_its_steps_deadline_is_known_to_have_had_no_effect(client: Client) -> None:
    async with raw(call_credits=0) as worker:
        await client.put_participant("worker", worker.address)
        await client.register(definition("d", step("one", kind="PIVOT", undo=None, deadline_s=0.3)))
        await client.start("d", None, id="s")
        await ended(client, "s", "COMPENSATED")
        view = await client.get("s")
        error = view.step("one").error
        assert error is not None
        assert error.code == "TIMEOUT"
        assert view.step("one").status == "FAILED"
        assert worker.calls.empty()


async def test_i41_a_participant_to_whom_there_is_no_connection_is_told_as_not_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "OPENING_S", 0.2)
    monkeypatch.setattr(participants, "DESCRIBE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # connections come about, and nobody reads them
        host, port = mute.getsockname()
        await client.put_participant("worker", f"{host}:{port}")
        await client.register(definition("d", step("one", kind="PIVOT", undo=None, attempts=1)))
        await client.start("d", None, id="s")
        async with asyncio.timeout(WAIT_S):
            view = await client.saga(None, "s").wait()
        error = view.step("one").error
        assert error is not None
        assert error.code == "UNAVAILABLE"
        assert "opened no session" in error.message


async def test_i34_a_request_that_cannot_be_written_fails_its_saga_and_no_other(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "write_execute", failing_for("poison", session.write_execute))
    async with raw() as worker:
        await client.put_participant("worker", worker.address)
        await client.register(definition("d", step("one", attempts=3)))
        await client.start("d", None, id="before")
        worker.succeed(await worker.call())
        await client.start("d", None, id="poison")
        undo = await worker.call()
        assert undo.compensate.call.saga_id == "poison"
        worker.succeed(undo)
        await ended(client, "poison", "COMPENSATED")
        error = (await client.get("poison")).step("one").error
        assert error is not None
        assert error.code == "INTERNAL"
        assert "secret" not in error.message
        await client.start("d", None, id="after")
        worker.succeed(await worker.call())
        await ended(client, "after")
        assert worker.opened == 1


async def test_i34_the_same_where_each_call_is_a_call_of_its_own(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(unary, "execute_request", failing_for("poison", unary.execute_request))
    async with plain(tmp_path) as address:
        await client.put_participant("worker", address, concurrency_max=1)
        await client.register(definition("d", step("one", attempts=3)))
        await client.start("d", None, id="poison")
        await ended(client, "poison", "COMPENSATED")
        await client.start("d", None, id="after")
        await ended(client, "after")


async def test_a_session_whose_reading_breaks_is_ended_and_opened_anew(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = session.Session._take, asyncio.Event()

    async def take(self: session.Session, response: pb.SessionResponse) -> None:
        if response.results and not broken.is_set():
            broken.set()
            raise RuntimeError("secret")
        await real(self, response)

    monkeypatch.setattr(session.Session, "_take", take)
    async with raw() as worker:
        await client.put_participant("worker", worker.address)
        await client.register(definition("d", step("one", attempts=3, timeout_s=60)))
        await client.start("d", None, id="s")
        worker.succeed(await worker.call())
        again = await worker.call()
        assert again.execute.call.attempt == 2
        worker.succeed(again)
        await ended(client, "s")
        assert worker.opened == 2
