"""Participants that open no session, for a while or at all: they are called by single calls, and asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from amends import Client, Participant, Retry, Saga
from amends.v1 import participant_pb2 as pb
from amends.v1 import participant_pb2_grpc
from amends_server.bench.nodes import UnaryServicer
from amends_server.transport import link, session
from tests.sessions.raw import WAIT_S

SILENT = "says nothing"
worker = Participant("worker")


@worker.action
async def do(request: int) -> int:
    return request


@do.compensation
async def undo(request: int, done: int | None) -> None: ...


class Moody(UnaryServicer):
    """Serves sessions, but for the first `moody_for`: refuses them with the status in its `mood`, or lets them wait.

    While it is `going`, the next single call finds it gone, and all others find its successor, which is in no mood.
    """

    def __init__(self) -> None:
        super().__init__(worker.servicer())
        self.mood: grpc.StatusCode | str | None = None
        self.opened = 0
        self.moody_for = 1_000
        self.going = False
        self.single: list[str] = []

    async def Execute(self, request: pb.ExecuteRequest, context: Any) -> pb.ExecuteResponse:
        self.single.append(request.call.saga_id)
        if self.going:
            self.going, self.mood = False, None
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return await super().Execute(request, context)

    async def Session(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[pb.SessionRequest], context: Any
    ) -> None:
        self.opened += 1
        mood = self.mood if self.opened <= self.moody_for else None
        if isinstance(mood, grpc.StatusCode):
            await context.abort(mood, "no sessions now")
        elif mood == SILENT:
            await asyncio.Event().wait()
        else:
            await self._served.Session(request_iterator, context)


@pytest.fixture
async def moody(client: Client) -> AsyncIterator[Moody]:
    served, server = Moody(), grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await client.put_participant("worker", f"127.0.0.1:{port}")
    yield served
    await server.stop(None)


async def run(client: Client, saga_id: str) -> None:
    """Run a saga of one step, for which there is one attempt."""
    saga: Saga[Any, Any] = Saga("one")
    saga.step(do, 1, id="a")
    async with asyncio.timeout(WAIT_S):
        assert (await (await client.start(saga, None, id=saga_id)).wait()).status == "COMPLETED"
    assert (await client.get(saga_id)).step("a").attempts == 1


async def run_until_in_session(client: Client, moody: Moody) -> None:
    async with asyncio.timeout(WAIT_S):
        number = 0
        while True:
            await run(client, f"later-{number}")
            if f"later-{number}" not in moody.single:
                return
            number += 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
async def test_calls_are_single_while_sessions_are_refused_and_in_sessions_again_afterwards(
    client: Client, moody: Moody, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    monkeypatch.setattr(link, "PROBE_SOON_S", 0.0)
    monkeypatch.setattr(link, "PROBE_LATER_S", 0.0)
    moody.mood = code
    for number in range(3):
        await run(client, f"early-{number}")
    assert len(moody.single) == 3
    moody.mood = None
    await run_until_in_session(client, moody)


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE])
async def test_what_a_connection_says_that_breaks_is_no_word_of_whoever_is_there_next(
    client: Client, moody: Moody, code: grpc.StatusCode
) -> None:
    moody.mood, moody.moody_for = code, 1
    await run(client, "s")
    assert (moody.opened, moody.single) == (2, [])


async def test_single_calls_do_not_wait_for_a_session_that_is_tried_beside_them(
    client: Client, moody: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PROBE_SOON_S", 0.0)
    monkeypatch.setattr(session, "OPENING_S", 0.2)
    moody.mood = SILENT
    await run(client, "first")
    monkeypatch.setattr(session, "OPENING_S", 10 * WAIT_S)
    for number in range(3):
        await run(client, f"s-{number}")
    assert moody.opened > 1, "it was tried again"
    assert len(moody.single) == 4


async def test_calls_wait_for_a_session_again_once_a_single_one_finds_nobody(client: Client, moody: Moody) -> None:
    """Whoever was there may have gone while a session was tried, and be another one when it is back."""
    moody.mood, moody.going = grpc.StatusCode.UNAVAILABLE, True
    saga: Saga[Any, Any] = Saga("one")
    saga.step(do, 1, id="a", retry=Retry(attempts=5, interval=0.05))
    async with asyncio.timeout(WAIT_S):
        assert (await (await client.start(saga, None, id="s")).wait()).status == "COMPLETED"
    assert moody.single == ["s"]


async def test_a_participant_that_has_no_sessions_is_not_asked_again_at_once(client: Client, moody: Moody) -> None:
    moody.mood = grpc.StatusCode.UNIMPLEMENTED
    for number in range(5):
        await run(client, f"s-{number}")
    assert moody.opened == 1
