"""Sessions between the orchestrator and participants, over real sockets."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from amends import Client, Participant, Retry, Saga, SagaHandle
from amends.participant.serve import serving
from amends.v1 import participant_pb2, participant_pb2_grpc, payload_pb2, saga_pb2
from amends_server.app import Server
from amends_server.bench.nodes import UnaryServicer
from tests.sessions.raw import WAIT_S, RawParticipant, raw

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
async def worker(client: Client) -> AsyncIterator[RawParticipant]:
    async with raw() as participant:
        await client.put_participant("worker", participant.address)
        yield participant


async def test_calls_of_many_sagas_share_one_stream(client: Client, worker: RawParticipant) -> None:
    sagas = [await start(client, f"s{i}") for i in range(20)]
    calls = [await worker.call() for _ in sagas]
    assert {call.execute.call.saga_id for call in calls} == {saga.id for saga in sagas}
    assert all(call.execute.call.HasField("expire_time") for call in calls)
    worker.succeed(*reversed(calls))
    await all_end(sagas)
    assert worker.opened == 1


async def test_nothing_comes_before_the_participant_has_spoken(client: Client, worker: RawParticipant) -> None:
    """What it says of a session that it ends at once would be lost where it meets a write."""
    saga = await start(client, "s")
    worker.succeed(await worker.call())
    await all_end([saga])
    assert worker.batches == [1]


async def test_no_more_is_sent_than_the_participant_takes(client: Client, server: Server) -> None:
    async with raw(call_credits=2) as worker:
        await client.put_participant("worker", worker.address)
        sagas = [await start(client, f"s{i}") for i in range(6)]
        first, second = await worker.call(), await worker.call()
        worker.succeed(first, call_credits=0)
        await handle(client, first).wait()
        assert worker.calls.empty(), "a result gives no credit by itself"
        worker.give(1)
        third = await worker.call()
        assert worker.calls.empty()
        worker.give(100)
        worker.succeed(second, third, *[await worker.call() for _ in range(3)])
        await all_end(sagas)
        assert worker.opened == 1


async def test_calls_in_flight_when_the_stream_breaks_are_sent_again_under_the_same_key(
    client: Client, worker: RawParticipant
) -> None:
    sagas = [await start(client, f"s{i}") for i in range(5)]
    lost = {call.execute.call.saga_id: call.execute for call in [await worker.call() for _ in sagas]}
    worker.end(grpc.StatusCode.INTERNAL)
    again = [await worker.call() for _ in sagas]
    for call in again:
        before = lost[call.execute.call.saga_id]
        assert (call.execute.call.attempt, call.execute.call.key) == (2, before.call.key)
        assert call.execute.input == before.input
    worker.succeed(*again)
    await all_end(sagas)
    assert worker.opened == 2
    kinds = [event.kind async for event in sagas[0].watch()]
    assert kinds.count("step_retry_scheduled") == 1, "the break is on record: nothing is sent twice silently"


async def test_calls_that_were_not_sent_when_the_stream_ended_keep_their_attempt(
    client: Client, server: Server
) -> None:
    async with raw(call_credits=1) as worker:
        await client.put_participant("worker", worker.address)
        sagas = [await start(client, f"s{i}") for i in range(3)]
        first = await worker.call()
        worker.succeed(first, call_credits=0)
        await handle(client, first).wait()
        worker.credits = 10
        worker.end()
        rest = [await worker.call() for _ in range(2)]
        assert [call.execute.call.attempt for call in rest] == [1, 1]
        worker.succeed(*rest)
        await all_end(sagas)


async def test_a_call_that_was_not_begun_is_made_over_another_session_as_the_same_attempt(
    client: Client, worker: RawParticipant
) -> None:
    sagas = [await start(client, f"s{i}", attempts=1) for i in range(3)]
    calls = [await worker.call() for _ in sagas]
    worker.decline(*calls)
    again = [await worker.call() for _ in sagas]
    assert {(c.execute.call.saga_id, c.execute.call.attempt) for c in again} == {(saga.id, 1) for saga in sagas}
    worker.succeed(*again)
    await all_end(sagas)
    assert worker.opened == 2
    assert [event.kind async for event in sagas[0].watch()].count("step_dispatched") == 1


async def test_calls_in_flight_beside_one_that_was_not_begun_keep_their_session(client: Client) -> None:
    async with raw() as worker:
        await client.put_participant("worker", worker.address)
        kept = await start(client, "kept", attempts=1)
        await worker.call()
        answers = worker.answers
        declined = await start(client, "declined", attempts=1)
        worker.decline(await worker.call())
        worker.succeed(await worker.call())  # over the second session
        await all_end([declined])
        assert worker.opened == 2
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=payload_pb2.Payload(json="1"))
        answers.put_nowait(participant_pb2.SessionResponse(results=[participant_pb2.SessionResult(id=1, reply=reply)]))
        await all_end([kept])


async def test_a_call_that_is_never_begun_counts_the_second_time(client: Client, worker: RawParticipant) -> None:
    saga = await start(client, "s", attempts=1)
    for _ in range(2):
        worker.decline(await worker.call())
    undo = await worker.call()
    assert undo.compensate.call.saga_id == "s"
    worker.succeed(undo)
    async with asyncio.timeout(WAIT_S):
        assert (await saga.wait()).status == "COMPENSATED"


async def test_a_participant_that_is_gone_is_told_as_such_and_found_again(
    client: Client, worker: RawParticipant
) -> None:
    saga = await start(client, "s", attempts=50)
    await worker.call()
    await worker.stop()
    async with asyncio.timeout(WAIT_S):
        async for event in saga.watch():
            if event.kind == "step_retry_scheduled" and event.attempt == 2:
                break
    await worker.start()
    worker.succeed(await worker.call())
    await all_end([saga])


async def test_c36_a_result_after_its_time_is_recorded_and_changes_nothing(
    client: Client, worker: RawParticipant
) -> None:
    saga = await start(client, "s", timeout=1)
    first = await worker.call()
    second = await worker.call()
    assert (first.execute.call.attempt, second.execute.call.attempt) == (1, 2)
    worker.succeed(first)
    async with asyncio.timeout(WAIT_S):
        async for event in saga.watch():
            if event.kind == "late_reply_recorded":
                break
    worker.succeed(second)
    await all_end([saga])
    view = await saga.status()
    assert view.step("a").attempts == 2


async def test_a_call_that_the_participant_does_not_take_is_told_by_its_status(
    client: Client, worker: RawParticipant
) -> None:
    saga = await start(client, "s")
    worker.refuse(await worker.call(), grpc.StatusCode.UNAVAILABLE, "busy")
    again = await worker.call()
    assert again.execute.call.attempt == 2
    worker.refuse(again, grpc.StatusCode.UNIMPLEMENTED, "no such action")
    undo = await worker.call()  # a status proves nothing
    assert undo.compensate.execute_key == again.execute.call.key
    worker.succeed(undo)
    view = await asyncio.wait_for(saga.wait(), WAIT_S)
    error = view.step("a").error
    assert error is not None
    assert error.code == "UNIMPLEMENTED"
    assert "no such action" in error.message


async def test_a_participant_without_sessions_is_found_out_once(client: Client, server: Server) -> None:
    tried = 0

    class Unary(UnaryServicer):
        async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[participant_pb2.SessionResponse]:
            nonlocal tried
            tried += 1
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no sessions")
            yield participant_pb2.SessionResponse()

    plain = Participant("worker")

    @plain.action
    async def do(request: object) -> int:
        return 1

    @do.compensation
    async def undo(request: object, done: int | None) -> None: ...

    unary = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(Unary(plain.servicer()), unary)
    port = unary.add_insecure_port("127.0.0.1:0")
    await unary.start()
    try:
        await client.put_participant("worker", f"127.0.0.1:{port}")
        await all_end([await start(client, f"s{i}") for i in range(30)])
        assert tried == 1
    finally:
        await unary.stop(None)


async def test_one_saga_over_participants_with_and_without_sessions(client: Client, worker: RawParticipant) -> None:
    other = Participant("other")

    @other.action
    async def more(request: object) -> int:
        return 2

    @more.compensation
    async def less(request: object, done: int | None) -> None: ...

    unary = grpc.aio.server()
    participant_pb2_grpc.add_ParticipantServiceServicer_to_server(UnaryServicer(other.servicer()), unary)
    port = unary.add_insecure_port("127.0.0.1:0")
    await unary.start()
    try:
        await client.put_participant("other", f"127.0.0.1:{port}")
        saga: Saga[Any, Any] = Saga("mixed")
        saga.step(Participant("worker").declare("do", object, int, compensation=True), id="a")
        saga.step(more, id="b")
        running = await client.start(saga, 1)
        worker.succeed(await worker.call())
        assert await asyncio.wait_for(running.result(), WAIT_S) == {"a": 1, "b": 2}
    finally:
        await unary.stop(None)


async def test_a_slow_handler_holds_up_no_other(client: Client, server: Server) -> None:
    kit, go_on, begun = Participant("worker"), asyncio.Event(), asyncio.Event()

    @kit.action
    async def do(request: object) -> int:
        if request == "slow":
            begun.set()
            await go_on.wait()
        return 1

    @do.compensation
    async def undo(request: object, done: int | None) -> None: ...

    async with serving(kit, orchestrator=server.address):
        slow = await start(client, "slow", input="slow")
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await all_end([await start(client, f"s{i}") for i in range(100)])
        assert (await slow.status()).step("a").status == "RUNNING"
        go_on.set()
        await all_end([slow])


async def test_a_result_that_is_too_large_costs_no_other_call_its_attempt(client: Client, server: Server) -> None:
    kit, go_on, begun = Participant("worker"), asyncio.Event(), asyncio.Event()

    @kit.action
    async def do(request: object) -> int | str:
        if request == "slow":
            begun.set()
            await go_on.wait()
            return 1
        await begun.wait()
        return "x" * (6 << 20)

    @do.compensation
    async def undo(request: object, done: int | str | None) -> None: ...

    async with serving(kit, orchestrator=server.address):
        slow = await start(client, "slow", input="slow", attempts=1, timeout=WAIT_S)
        large = await asyncio.wait_for((await start(client, "large", attempts=3)).wait(), WAIT_S)
        error = large.step("a").error
        assert error is not None
        assert error.code == "RESOURCE_EXHAUSTED"
        assert large.step("a").attempts == 1, "it would be as large again"
        go_on.set()
        await all_end([slow])


async def test_what_is_in_flight_when_a_participant_is_stopped_is_answered(client: Client, server: Server) -> None:
    kit, go_on, begun = Participant("worker"), asyncio.Event(), asyncio.Event()

    @kit.action
    async def do(request: object) -> int:
        begun.set()
        await go_on.wait()
        return 1

    @do.compensation
    async def undo(request: object, done: int | None) -> None: ...

    async with asyncio.timeout(WAIT_S):
        async with serving(kit, orchestrator=server.address):
            saga = await start(client, "s")
            await begun.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)  # while it is being stopped
    await all_end([saga])
    assert (await saga.status()).step("a").attempts == 1


PROCESS = """
import asyncio, sys
from amends import Participant
from amends.participant.serve import run
worker = Participant("worker")
@worker.action
async def do(request: object) -> int:
    print("called", flush=True)
    if sys.argv[2] == "hang":
        await asyncio.Event().wait()
    return 1
@do.compensation
async def undo(request: object, done: int | None) -> None: ...
run(worker, listen=sys.argv[1])
"""


async def test_a_participant_killed_in_mid_stream_is_asked_again_when_it_is_back(
    client: Client, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(PROCESS, encoding="utf-8")
    first = await asyncio.create_subprocess_exec(
        sys.executable, str(script), "127.0.0.1:0", "hang", stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert first.stdout is not None
    address = (await asyncio.wait_for(first.stdout.readline(), WAIT_S)).decode().split()[1]
    await client.put_participant("worker", address)
    sagas = [await start(client, f"s{i}", attempts=100) for i in range(10)]
    async with asyncio.timeout(WAIT_S):
        for _ in sagas:
            assert await first.stdout.readline() == b"called\n"
        first.send_signal(signal.SIGKILL)
        await first.wait()
        second = await asyncio.create_subprocess_exec(
            sys.executable, str(script), address, "answer", stdout=asyncio.subprocess.DEVNULL, cwd=ROOT
        )
        try:
            await all_end(sagas)
        finally:
            second.kill()
            await second.wait()
    views = [await saga.status() for saga in sagas]
    assert all(view.step("a").attempts >= 2 for view in views)


async def start(
    client: Client, saga_id: str, *, input: object = 1, attempts: int = 3, timeout: float = 5
) -> SagaHandle[Any]:
    """Start a saga of one step of `worker`."""
    saga: Saga[Any, Any] = Saga("one")
    action = Participant("worker").declare("do", object, int, compensation=True)
    retry = Retry(attempts=attempts, interval=0.05, interval_max=0.2)
    saga.step(action, id="a", retry=retry, timeout=timeout)
    return await client.start(saga, input, id=saga_id)


def handle(client: Client, call: participant_pb2.SessionCall) -> SagaHandle[Any]:
    return client.saga(None, call.execute.call.saga_id)


async def all_end(sagas: list[SagaHandle[Any]]) -> None:
    """Wait until all are COMPLETED."""
    async with asyncio.timeout(WAIT_S):
        assert {(await saga.wait()).status for saga in sagas} == {"COMPLETED"}
