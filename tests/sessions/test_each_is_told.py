"""Each call is told what became of it, whatever breaks beside it: of one that is not told, its saga waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from amends.v1 import saga_pb2
from amends_server.engine.commands import Succeeded, Unknown, Verdict
from amends_server.engine.payload import Error
from amends_server.transport import session
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.verdicts import verdict_of_reply
from tests.sessions.calls import Calls, an_order, an_origin
from tests.sessions.raw import WAIT_S, RawParticipant, raw

GONE = Unknown(Error("GONE", "There is no such participant any more."))
SOON_US = 200_000


def fail(*anything: object, **more: object) -> NoReturn:
    raise ValueError("secret")


def code(verdict: Verdict) -> str:
    assert isinstance(verdict, Unknown)
    return verdict.error.code


async def and_others_go_on(calls: Calls, worker: RawParticipant) -> None:
    """See whether the next call goes over the same stream."""
    calls.send(worker)
    worker.succeed(await worker.call())
    assert isinstance(await calls.verdict(), Succeeded)
    assert worker.opened == 1


async def test_i34_a_call_whose_answer_meets_a_bug_is_told_so(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw() as worker:
        with monkeypatch.context() as broken:
            broken.setattr(session, "verdict_of_reply", fail)
            calls.send(worker)
            worker.succeed(await worker.call())
            assert code(await calls.verdict()) == "INTERNAL"
        await and_others_go_on(calls, worker)


async def test_i34_an_answer_that_comes_too_late_and_meets_a_bug_costs_no_other_call(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw() as worker:
        calls.send(worker, timeout_us=SOON_US)
        late = await worker.call()
        assert code(await calls.verdict()) == "TIMEOUT"
        calls.send(worker)
        other = await worker.call()
        answers = list[object]()

        def fail_once(participant: str, reply: saga_pb2.Reply | None, size_bytes_max: int) -> Verdict:
            answers.append(reply)
            return fail() if len(answers) == 1 else verdict_of_reply(participant, reply, size_bytes_max)

        monkeypatch.setattr(session, "verdict_of_reply", fail_once)
        with capture_logs() as logs:
            worker.succeed(late, other)
            assert isinstance(await calls.verdict(), Succeeded)
        assert {"log_level": "error", "event": "late_reply_broke", "participant": "p", "error": "ValueError"} in logs
        await and_others_go_on(calls, worker)


async def test_i34_a_saga_that_cannot_be_told_stops_no_other(calls: Calls) -> None:
    async with raw() as worker:
        calls.transport.send(Endpoint("p", worker.address, 1_000), an_order(), an_origin({}), fail)
        worker.succeed(await worker.call())
        await and_others_go_on(calls, worker)


async def test_i34_a_saga_that_cannot_be_asked_whether_it_wants_its_call_is_told_so(calls: Calls) -> None:
    told: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    async with raw() as worker:
        endpoint = Endpoint("p", worker.address, 1_000)
        calls.transport.send(endpoint, an_order(), an_origin({}), told.set_result, fail)
        assert code(await asyncio.wait_for(told, WAIT_S)) == "INTERNAL"
        await and_others_go_on(calls, worker)


async def test_calls_that_wait_for_a_participant_that_is_removed_are_told(calls: Calls) -> None:
    async with raw(call_credits=0) as worker:
        for _ in range(2):
            calls.send(worker)
        await worker.until_opened()
        calls.transport.forget("p", GONE)
        assert [await calls.verdict() for _ in range(2)] == [GONE, GONE]


async def test_calls_whose_time_is_up_are_told_beside_others_that_were_answered(calls: Calls) -> None:
    async with raw() as worker:
        for _ in range(5):
            calls.send(worker, timeout_us=SOON_US)
        sent = [await worker.call() for _ in range(5)]
        worker.succeed(*sent[:4])
        *_, last = [await calls.verdict() for _ in range(5)]
        assert code(last) == "TIMEOUT"


async def test_a_participant_may_send_as_many_results_as_there_are_calls(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RESULTS_MAX", 4)
    async with raw() as worker:
        for _ in range(10):
            calls.send(worker)
            worker.succeed(await worker.call())
            assert isinstance(await calls.verdict(), Succeeded)
        assert worker.result_credits > 10


async def test_a_call_that_is_answered_before_it_is_known_to_be_written_leaves_its_session_open(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with raw() as worker:
        await and_others_go_on(calls, worker)
        opened = calls.transport._links["p"]._session
        assert opened is not None
        write, told = opened._stream.write, asyncio.Event()

        async def write_and_wait(batch: Any) -> None:
            await write(batch)
            await told.wait()

        monkeypatch.setattr(opened._stream, "write", write_and_wait)
        calls.send(worker)
        worker.succeed(await worker.call())
        assert isinstance(await calls.verdict(), Succeeded)
        calls.send(worker)
        told.set()
        worker.succeed(await worker.call())
        assert isinstance(await calls.verdict(), Succeeded)
        assert worker.opened == 1
