"""The server's half of a client's session, with both ends by hand: what it reads, what it keeps, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.rpc import status_pb2

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import saga_pb2
from amends_server.engine.state import State
from amends_server.hub import Hub
from amends_server.service import outcomes, session
from amends_server.service.session import Session, Starter, Told
from amends_server.store.protocol import Birth, SagaKey
from tests.engine.build import Run, compensatable

WAIT_S = 30.0
ABORTED = grpc.StatusCode.ABORTED.value[0]
BIRTH = Birth(definition_name="d", definition_version=1, definition_digest="x", fingerprint=b"", create_time=0)


class HandContext:
    """What a session needs of a call's context; the test says what comes, and sees what is written."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.reads = 0
        self.reading = asyncio.Condition()
        self.outcomes: asyncio.Queue[pb.SessionOutcome] = asyncio.Queue()

    async def read(self) -> Any:
        async with self.reading:
            self.reads += 1
            self.reading.notify_all()
        return await self.sent.get()

    async def write(self, response: pb.OrchestratorServiceSessionResponse) -> None:
        for outcome in response.outcomes:
            self.outcomes.put_nowait(outcome)

    async def outcome(self) -> pb.SessionOutcome:
        return await asyncio.wait_for(self.outcomes.get(), WAIT_S)

    async def read_for(self, count: int) -> None:
        """Wait until the session reads for that often."""
        async with asyncio.timeout(WAIT_S), self.reading:
            await self.reading.wait_for(lambda: self.reads >= count)


class AllOwned:
    """The domain of the one owner of a store."""

    share = None

    def owns(self, key: SagaKey) -> bool:
        return True


@dataclass(slots=True)
class Desk:
    """A session, and who starts its sagas: the test says what becomes of each start."""

    context: HandContext = field(default_factory=HandContext)
    hub: Hub = field(default_factory=Hub)
    told: dict[str, Told] = field(default_factory=dict[str, Told])

    def begin(self, request: pb.StartSagaRequest, starter: Starter, told: Told) -> bool:
        self.told[request.saga_id] = told
        return True

    def durable(self, saga_id: str) -> SagaKey:
        """Say that a start is durable; its step is out."""
        key = SagaKey("n", saga_id)
        self.told[saga_id](key, BIRTH, running())
        return key

    def send(self, *saga_ids: str, size: int = 0, result_credits: int = 0) -> None:
        """Send starts in one message."""
        message = pb.OrchestratorServiceSessionRequest(result_credits=result_credits)
        for saga_id in saga_ids:
            request = message.starts.add(id=len(self.told) + 1, start=pb.StartSagaRequest(saga_id=saga_id, wait=True))
            request.start.input.json = '"' + "x" * size + '"'
        self.context.sent.put_nowait(message)


@asynccontextmanager
async def served(desk: Desk) -> AsyncGenerator[asyncio.Task[None]]:
    async def nobody(*_: object) -> Any:
        raise AssertionError("all starts are begun at once")

    one = Session(
        cast("Any", desk.context),
        starter=Starter("somebody", ""),
        begin=desk.begin,
        start=nobody,
        look=nobody,
        domain=cast("Any", AllOwned()),
        hub=desk.hub,
    )
    running = asyncio.create_task(one.run())
    try:
        yield running
    finally:
        desk.context.sent.put_nowait(grpc.aio.EOF)
        one.drain()
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    async with served(made):
        yield made


@pytest.fixture
async def broken() -> list[dict[str, Any]]:
    """What callbacks raised."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


def running() -> State:
    return Run(compensatable("a")).state


def completed() -> State:
    run = Run(compensatable("a"))
    run.done("a")
    assert run.state.settled
    return run.state


async def test_room_for_starts_is_given_back_as_they_become_durable_and_not_when_all_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STARTS_BYTES_MAX", 1_500)
    desk.send("a", size=1_000)
    desk.send("b", size=1_000)
    desk.send("c", size=1_000)
    await desk.context.read_for(2)
    while "b" not in desk.told:  # noqa: ASYNC110 – the session says nothing when it stops to read
        await asyncio.sleep(0)
    assert desk.context.reads == 2, "there is no room for more"
    desk.durable("a")
    await desk.context.read_for(3)
    while "c" not in desk.told:  # noqa: ASYNC110 – as above
        await asyncio.sleep(0)
    assert desk.context.reads == 3, "two are still under way, as before"
    desk.durable("b")
    await desk.context.read_for(4)


async def test_ends_that_a_client_does_not_take_are_bounded_by_their_bytes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "ENDS_BYTES_MAX", 1)  # the one that goes beyond is kept
    desk.send("a", "b", "c")
    await desk.context.read_for(2)
    for saga_id in ("a", "b", "c"):
        desk.hub.publish(desk.durable(saga_id), completed())
    desk.send(result_credits=10)
    found = [await desk.context.outcome() for _ in range(6)]
    ends = [outcome for outcome in found if outcome.status_code or outcome.saga.HasField("create_time")]
    assert [(outcome.status_code, outcome.saga.status) for outcome in ends] == [
        (0, saga_pb2.SAGA_STATUS_COMPLETED),
        (ABORTED, saga_pb2.SAGA_STATUS_UNSPECIFIED),
        (ABORTED, saga_pb2.SAGA_STATUS_UNSPECIFIED),
    ]
    desk.send("d")
    await desk.context.read_for(4)
    desk.hub.publish(desk.durable("d"), completed())
    assert (await desk.context.outcome()).saga.saga_id == "d"
    assert (await desk.context.outcome()).saga.status == saga_pb2.SAGA_STATUS_COMPLETED, "what was taken counts no more"


async def test_an_end_that_comes_when_the_process_is_about_to_end_breaks_nothing(broken: list[dict[str, Any]]) -> None:
    """Of a hub that is closed the answer comes later, when the session may be over."""
    desk = Desk()
    async with served(desk) as running:
        desk.send("a")
        await desk.context.read_for(2)
        running.cancel()
        desk.hub.close()
        desk.durable("a")
    await asyncio.sleep(0)
    assert broken == []


async def test_of_a_saga_that_settles_once_a_session_waits_no_longer_nothing_more_is_told(
    desk: Desk, broken: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WAITS_MAX", 1)
    desk.hub.closed = True
    desk.send("a", "b", result_credits=10)
    await desk.context.read_for(2)
    desk.durable("a")
    desk.durable("b")
    found = [await desk.context.outcome() for _ in range(4)]
    assert [outcome.status_code for outcome in found] == [0, 0, ABORTED, ABORTED]
    assert broken == []


def test_an_outcome_that_does_not_fit_is_told_in_the_next_message_and_only_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcomes, "OUTCOMES_BYTES_MAX", 300)
    kept = outcomes.Outcomes()
    for number in range(3):
        kept.add(outcomes.Refused(number, status_pb2.Status(code=8, message="x" * 200), end=False))
    told: list[tuple[list[int], int]] = []
    while kept:
        response = pb.OrchestratorServiceSessionResponse()
        answered = kept.write(response, credits=9)
        told.append(([outcome.id for outcome in response.outcomes], answered))
    assert told == [([0], 1), ([1], 1), ([2], 1)]
