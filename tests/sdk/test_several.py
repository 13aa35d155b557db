"""A client of several orchestrators: nobody notices that one is gone, hangs, or has lost its store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import grpc
import pytest

import amends.client.saga
from amends import Client, DeadlineExceeded, Participant, SagaStatus, Unavailable
from amends.participant.serve import serving
from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from tests.sdk.scripted import Context, ScriptedOrchestrator, event, last_event, refuse, scripted
from tests.sdk.test_starts import acknowledge_next, opened, starts

WAIT_S = 20.0

COMPLETED = orchestrator_pb2.GetSagaResponse(
    saga=saga_pb2.Saga(saga_id="a", status=saga_pb2.SAGA_STATUS_COMPLETED, sequence=3)
)
FAILED = operator_pb2.FailSagaResponse(saga=COMPLETED.saga)


@pytest.fixture
async def three() -> AsyncGenerator[list[ScriptedOrchestrator], None]:
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(scripted()) for _ in range(3)]
        for each in found:
            each.returns("GetSaga", COMPLETED)
            each.returns("StartSaga", orchestrator_pb2.StartSagaResponse(created=True))
            each.returns("FailSaga", FAILED)
        yield found


@pytest.fixture
async def client(three: list[ScriptedOrchestrator]) -> AsyncGenerator[Client, None]:
    async with Client(target_of(three), retry_for=5) as one, asyncio.timeout(WAIT_S):
        yield one


def target_of(orchestrators: list[ScriptedOrchestrator]) -> str:
    return ", ".join(each.address for each in orchestrators)


def asked(orchestrators: list[ScriptedOrchestrator]) -> list[int]:
    return [len(each.requests) for each in orchestrators]


async def connected_to_all(orchestrators: list[ScriptedOrchestrator], client: Client) -> None:
    while not all(asked(orchestrators)):
        await client.get("a")


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections, and never says anything: what a stopped process looks like."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("target", ["", ",", "a:1,,b:2", "a:1,"])
async def test_an_empty_address_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="with commas between"):
        await Client(target).__aenter__()


async def test_calls_take_turns(three: list[ScriptedOrchestrator], client: Client) -> None:
    await connected_to_all(three, client)
    before = asked(three)
    for _ in range(30):
        await client.get("a")
    assert [after - first for first, after in zip(before, asked(three), strict=True)] == [10, 10, 10]


async def test_a_call_that_must_not_be_repeated_goes_to_one_that_is_there(
    three: list[ScriptedOrchestrator], client: Client
) -> None:
    for each in three[:2]:
        await each.stop()
    for _ in range(10):
        await client.fail("a", reason="b")
    assert asked(three) == [0, 0, 10]
    for each in three[:2]:
        await each.start()


async def test_one_that_comes_back_has_its_turns_again(three: list[ScriptedOrchestrator], client: Client) -> None:
    await three[0].stop()
    await client.get("a")
    await three[0].start()
    while not three[0].requests:
        await client.get("a")


async def test_one_that_lost_its_store_rests(three: list[ScriptedOrchestrator], client: Client) -> None:
    three[0].returns("GetSaga", grpc.StatusCode.UNAVAILABLE)
    while not three[0].requests:  # until there is a connection to it
        assert (await client.get("a")).status is SagaStatus.COMPLETED
    for _ in range(30):
        assert (await client.get("a")).status is SagaStatus.COMPLETED
    assert 1 <= asked(three)[0] < 5


async def test_one_that_hangs_is_passed_over(three: list[ScriptedOrchestrator]) -> None:
    async def hang(_: object, __: Context) -> object:
        return await asyncio.Event().wait()

    three[0].on("GetSaga", hang)
    async with Client(target_of(three), timeout=0.3) as client, asyncio.timeout(WAIT_S):
        while not three[0].requests:  # until there is a connection to it
            assert (await client.get("a")).status is SagaStatus.COMPLETED
        for _ in range(10):
            assert (await client.get("a")).status is SagaStatus.COMPLETED


async def test_one_at_which_a_saga_was_waited_for_in_vain_is_not_passed_over(
    three: list[ScriptedOrchestrator], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(request: orchestrator_pb2.GetSagaRequest, _: Context) -> object:
        return await asyncio.Event().wait() if request.wait else COMPLETED

    monkeypatch.setattr(amends.client.saga, "WAIT_S", 0.1)
    for each in three:
        each.on("GetSaga", waits)
    await connected_to_all(three, client)
    assert (await client.saga(None, "a").wait()).status is SagaStatus.COMPLETED
    before = asked(three)
    for _ in range(9):
        await client.get("a")
    assert [now - then for now, then in zip(asked(three), before, strict=True)] == [3, 3, 3]


async def test_one_that_never_says_anything_is_not_waited_for(three: list[ScriptedOrchestrator]) -> None:
    with silent() as address:
        async with Client(f"{address},{three[1].address}") as client, asyncio.timeout(WAIT_S):
            for _ in range(10):
                await client.fail("a", reason="b")
    assert asked(three) == [0, 10, 0]


async def test_all_that_hang_are_given_up(three: list[ScriptedOrchestrator]) -> None:
    async def hang(_: object, __: Context) -> object:
        return await asyncio.Event().wait()

    for each in three:
        each.on("GetSaga", hang)
    async with Client(target_of(three), timeout=0.1, retry_for=0.5) as client, asyncio.timeout(WAIT_S):
        while not all(asked(three)):  # at first there may be no connection to one of them in so short a time
            with pytest.raises(DeadlineExceeded):
                await client.get("a")


async def test_all_that_are_gone_are_given_up(three: list[ScriptedOrchestrator]) -> None:
    for each in three:
        await each.stop()
    async with Client(target_of(three), retry_for=0.2) as client, asyncio.timeout(WAIT_S):
        with pytest.raises(Unavailable):
            await client.get("a")
        with pytest.raises(Unavailable):
            await client.fail("a", reason="b")
    for each in three:
        await each.start()


@pytest.mark.parametrize("reason", ["OWNER_LOST", "NOT_OWNED"])
async def test_the_time_counts_that_an_orchestrator_waits_for_another_one(
    three: list[ScriptedOrchestrator], reason: str
) -> None:
    async def waits(_: object, context: Context) -> object:
        await asyncio.sleep(0.4)
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "nobody there", reason=reason)

    three[0].on("ResumeSaga", waits)
    async with Client(three[0].address, retry_for=0.5) as client, asyncio.timeout(WAIT_S):
        with pytest.raises(Unavailable, match="nobody there"):
            await client.resume("a", reason="b")
    assert 1 <= asked(three)[0] <= 2


@pytest.mark.parametrize("reason", ["SHUTTING_DOWN", "NOT_OWNED"])
async def test_what_was_not_begun_is_begun_elsewhere(
    three: list[ScriptedOrchestrator], client: Client, reason: str
) -> None:
    async def refused(_: object, context: Context) -> object:
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "not here", reason=reason)

    for each in three[:2]:
        each.on("FailSaga", refused)
    for _ in range(10):
        await client.fail("a", reason="b")
    assert asked(three)[2] == 10


async def test_nobody_else_is_asked_for_what_may_have_been_done(
    three: list[ScriptedOrchestrator], client: Client
) -> None:
    async def lost(_: object, context: Context) -> object:
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "nobody knows", reason="OWNER_LOST")

    for each in three:
        each.on("FailSaga", lost)
    with pytest.raises(Unavailable, match="nobody knows"):
        await client.fail("a", reason="b")
    assert sum(asked(three)) == 1


@pytest.mark.parametrize("reason", ["SHUTTING_DOWN", "NOT_OWNED"])
async def test_i37_what_may_have_been_done_is_not_told_as_not_begun_because_the_last_one_did_not_begin_it(
    three: list[ScriptedOrchestrator], reason: str
) -> None:
    """The first one that was asked may have done it before its answer was lost."""
    lost: list[str] = []

    async def refused(_: object, context: Context) -> object:
        why = lost.pop() if lost else reason
        await refuse(context, grpc.StatusCode.UNAVAILABLE, why, reason=why)

    for each in three:
        each.on("StartSaga", refused)
        each.on("ResumeSaga", refused)
    async with Client(target_of(three), retry_for=0.1) as client, asyncio.timeout(WAIT_S):
        for call in (lambda: client.start("order", None), lambda: client.resume("a", reason="b")):
            with pytest.raises(Unavailable, match=reason):
                await call()
            lost.append("OWNER_LOST")
            with pytest.raises(Unavailable, match="OWNER_LOST"):
                await call()


async def test_starts_of_a_session_that_breaks_go_elsewhere_with_their_ids(
    three: list[ScriptedOrchestrator], client: Client
) -> None:
    ids: list[str] = []

    async def breaks(context: Context) -> None:
        await opened(context)
        request = await context.read()
        while not request.starts:
            request = await context.read()
        ids.extend(each.start.saga_id for each in request.starts)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    async def keeps(context: Context) -> None:
        await opened(context)
        while isinstance(request := await context.read(), orchestrator_pb2.OrchestratorServiceSessionRequest):
            ids.extend(each.start.saga_id for each in request.starts)
            await acknowledge(context, [each.id for each in request.starts])

    three[0].on_session(breaks)
    for each in three[1:]:
        each.on_session(keeps)
    await connected_to_all(three, client)
    sagas = await asyncio.gather(*(client.start("x", number) for number in range(30)))
    assert set(ids) == {saga.id for saga in sagas}
    assert len(ids) > 30, "the one that breaks was given some"


async def acknowledge(context: Context, numbers: list[int]) -> None:
    response = orchestrator_pb2.OrchestratorServiceSessionResponse(start_credits=len(numbers))
    for number in numbers:
        response.outcomes.add(id=number, saga=saga_pb2.Saga(saga_id="any"))
    await context.write(response)


async def test_the_end_of_a_saga_is_asked_for_where_its_start_did_not_go(
    three: list[ScriptedOrchestrator], client: Client
) -> None:
    told = asyncio.Event()

    async def ends(context: Context) -> None:
        await opened(context)
        await starts(context)
        await told.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    for each in three:
        each.on_session(ends)
    saga = await client.start("x", 1)
    waiting = asyncio.create_task(saga.wait())
    told.set()
    assert (await waiting).status is SagaStatus.COMPLETED


async def test_a_watch_goes_on_elsewhere_without_a_gap(three: list[ScriptedOrchestrator], client: Client) -> None:
    async def two_more(request: orchestrator_pb2.WatchSagaRequest, context: Context) -> AsyncIterator[object]:
        for sequence in (request.after_sequence + 1, request.after_sequence + 2):
            yield last_event(sequence) if sequence == 8 else event(sequence)
        if request.after_sequence < 6:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")

    for each in three:
        each.on_stream("WatchSaga", two_more)  # type: ignore[arg-type]
    assert [each.sequence async for each in client.saga(None, "a").watch()] == list(range(1, 9))
    assert sum(bool(count) for count in asked(three)) > 1


async def test_a_participant_is_registered_at_one_that_is_there(three: list[ScriptedOrchestrator]) -> None:
    participant = Participant("echo")

    @participant.action
    async def say(text: str) -> str:
        return text

    three[1].returns("PutParticipant", operator_pb2.PutParticipantResponse())
    await three[0].stop()
    async with asyncio.timeout(WAIT_S), serving(participant, orchestrator=target_of(three[:2])) as address:
        (request,) = three[1].of(operator_pb2.PutParticipantRequest)
        assert request.participant.address == address
    await three[0].start()


async def test_who_says_that_it_has_no_share_of_the_sagas_is_passed_over_while_there_is_another(
    three: list[ScriptedOrchestrator],
) -> None:
    """It is about to end, and starts that it would refuse need not go there."""
    begun = [0, 0]

    async def with_share(context: Context) -> None:
        await opened(context)
        while True:
            await acknowledge_next(context, 1)
            begun[0] += 1

    async def without_share(context: Context) -> None:
        await opened(context)
        while True:
            await acknowledge_next(context)
            begun[1] += 1

    three[0].on_session(with_share)
    three[1].on_session(without_share)
    async with Client(target_of(three[:2])) as client, asyncio.timeout(WAIT_S):
        while not all(begun):
            await client.start("x", 1)
        before = begun[1]
        for _ in range(10):
            await client.start("x", 1)
        assert begun[1] == before
        await three[0].stop()
        for _ in range(3):
            await client.start("x", 1)
        while begun[1] < before + 3:  # noqa: ASYNC110 - it counts a moment after it has answered
            await asyncio.sleep(0.01)
