"""Local steps that several processes host: sagas find one that is there, whoever comes, leaves or dies."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from amends import NOT_NEEDED, Client, Participant, Retry, Saga
from amends.participant.serve import serving as serving_participant
from amends.v1 import operator_pb2, operator_pb2_grpc
from amends_server.app import serving
from amends_server.config import load_settings
from tests.ports import deserted

WAIT_S = 20.0
NEVER_S = 3600.0

hosting = importlib.import_module("amends.client._hosting")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[str]:
    async with serving(load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path}/amends.db")) as server:
        yield server.address


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "LOOK_INTERVAL_S", NEVER_S)


@pytest.fixture(autouse=True)
def nobody_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only because the machine stood still."""
    monkeypatch.setattr(hosting, "ANSWER_S", WAIT_S)
    monkeypatch.setattr(hosting, "LEAVE_S", WAIT_S)


def desk(says: str) -> Participant:
    """A replica of the process that hosts the desk."""
    participant = Participant("desk")

    @participant.action
    def plan(request: int) -> str:
        return says

    return participant


def planning(retry: Retry) -> Saga[int, str]:
    saga = Saga("planning", input=int, output=str)
    saga.returns(saga.step(desk("").actions["plan"], compensation=NOT_NEEDED, retry=retry).output)
    return saga


AT_ONCE = planning(Retry(attempts=1))
PATIENT = planning(Retry(attempts=-1, interval=0.05, interval_max=0.2))


async def planned_by(client: Client, saga: Saga[int, str] = AT_ONCE) -> str:
    return await asyncio.wait_for((await client.start(saga, 1)).result(), WAIT_S)


async def move(target: str, address: str) -> None:
    """Register the desk elsewhere, as a process does that dies later."""
    request = operator_pb2.PutParticipantRequest(participant=operator_pb2.Participant(name="desk", address=address))
    async with grpc.aio.insecure_channel(target) as channel:
        await operator_pb2_grpc.OperatorServiceStub(channel).PutParticipant(request, timeout=WAIT_S)


async def test_the_last_one_that_came_is_called_and_hands_back_when_it_leaves(target: str) -> None:
    async with Client(target) as client, client.hosting(desk("a")):
        assert await planned_by(client) == "a"
        async with client.hosting(desk("b")):
            assert await planned_by(client) == "b"
            async with client.hosting(desk("c")):
                assert await planned_by(client) == "c"
            assert await planned_by(client) == "b"
        assert await planned_by(client) == "a"


async def test_who_leaves_takes_nothing_from_the_one_that_came_later(target: str) -> None:
    async with Client(target) as client, AsyncExitStack() as first:
        await first.enter_async_context(client.hosting(desk("a")))
        async with client.hosting(desk("b")) as address:
            await first.aclose()
            assert await planned_by(client) == "b"
        assert await hosting.registered_at(client._connection, "desk") == address, "nobody is there to hand back to"


async def test_a_port_that_another_participant_has_now_is_not_handed_to(target: str) -> None:
    other = Participant("other")

    @other.action
    def plan(request: int) -> str:
        return "other"

    async with Client(target) as client, serving_participant(other) as taken:
        await move(target, taken)
        async with client.hosting(desk("b")) as address:
            pass
        assert await hosting.registered_at(client._connection, "desk") == address


async def test_one_that_died_is_replaced(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "LOOK_INTERVAL_S", 0.05)
    with deserted() as dead:
        async with Client(target) as client, client.hosting(desk("a")):
            await move(target, dead)
            assert await planned_by(client, PATIENT) == "a"


async def test_one_that_answers_is_left_in_its_place(
    target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = asyncio.Semaphore(0)
    original = hosting.registered_at

    async def seen(*arguments: object) -> str | None:
        found: str | None = await original(*arguments)
        looked.release()
        return found

    monkeypatch.setattr(hosting, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(hosting, "registered_at", seen)
    async with Client(target) as client, client.hosting(desk("a")), serving_participant(desk("b")) as alive:
        await move(target, alive)
        for _ in range(6):
            await asyncio.wait_for(looked.acquire(), WAIT_S)
        assert await planned_by(client) == "b"
        assert "does not answer" not in caplog.text, "it was looked at while it was there"


async def test_an_orchestrator_that_is_gone_keeps_nobody_from_leaving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "LEAVE_S", 0.2)
    async with AsyncExitStack() as orchestrator, AsyncExitStack() as hosts:
        settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path}/amends.db")
        server = await orchestrator.enter_async_context(serving(settings))
        client = await hosts.enter_async_context(Client(server.address))
        await hosts.enter_async_context(client.hosting(desk("a")))
        last = await hosts.enter_async_context(AsyncExitStack())
        await last.enter_async_context(client.hosting(desk("b")))
        await orchestrator.aclose()
        await asyncio.wait_for(last.aclose(), WAIT_S)
    assert "participant desk was not handed back" in caplog.text


async def test_it_waits_for_an_orchestrator_that_comes_up_later(tmp_path: Path) -> None:
    hosted = asyncio.Event()
    with deserted() as address:

        async def host() -> None:
            async with Client(address, retry_for=0) as client, client.hosting(desk("a")):
                hosted.set()

        task = asyncio.create_task(host())
        done, _ = await asyncio.wait([task], timeout=0.3)  # long enough for a call that finds nobody
        assert not done
        async with serving(load_settings(listen=address, store=f"sqlite:///{tmp_path}/amends.db")):
            await asyncio.wait_for(hosted.wait(), WAIT_S)
            await task
