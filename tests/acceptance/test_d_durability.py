"""Group D: what survives kill -9, SIGTERM and a store that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import grpc
import pytest

from amends import Call, Client, Participant, Saga, SagaStatus, StepStatus, serving
from amends.v1 import participant_pb2, saga_pb2
from amends.v1.orchestrator_pb2 import GetSagaRequest, WatchSagaRequest
from participants.ledger import Book
from participants.ledger import Ledger as Till
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    SQLITE_ONLY,
    THREE,
    WAIT_S,
    Gate,
    Process,
    Record,
    Refusal,
    World,
    definition,
    refusal_of,
    refuse,
    step,
    succeed,
    system_error,
)


def frozen(record: Record) -> bytes:
    """What a call says but for that which tells one attempt from another."""
    request = record.compensate_request if record.compensating else record.execute_request
    for field in ("attempt", "epoch", "expire_time", "completion_token"):
        request.call.ClearField(field)
    return request.SerializeToString(deterministic=True)


def same_call(first: Record, second: Record) -> bool:
    """Whether a participant that goes by the key would take one for the other, and find nothing else in it."""
    return first.key == second.key and frozen(first) == frozen(second)


async def test_d37_an_acknowledged_start_survives_and_needs_no_client(killable: World, server: Process) -> None:
    gate = Gate()
    killable.worker.on("one", gate.before())
    await killable.start(THREE, {"n": 1})
    await server.kill()
    gate.release()
    await server.start()
    await killable.ledger.until(lambda ledger: "end three" in ledger.lines("s"))
    assert killable.ledger.effects("s") == ["one", "two", "three"]
    saga = await killable.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    assert saga.input.read(object) == {"n": 1}


async def test_d37_starts_that_are_repeated_at_the_restart_lose_nothing(killable: World, server: Process) -> None:
    """A client that repeats its start while the server recovers that very saga must not get between the two."""
    gate = Gate()
    killable.worker.on("one", gate.before())
    ids = [f"s{i}" for i in range(60)]
    await asyncio.gather(*(killable.start(THREE, {"id": each}, id=each) for each in ids))
    await killable.ledger.until(lambda ledger: len(ledger.calls()) == len(ids))
    await server.kill()
    gate.release()
    repeated = [asyncio.create_task(killable.start(THREE, {"id": each}, id=each)) for each in ids]
    await server.start()
    for each in ids:
        assert (await killable.settled(each)).status is SagaStatus.COMPLETED
    await asyncio.gather(*repeated)
    for each in ids:
        assert killable.ledger.effects(each) == ["one", "two", "three"]
        assert [len(killable.ledger.calls(each, name)) for name in ("two", "three")] == [1, 1]


@OVER_BOTH_LINKS
async def test_d38_a_step_that_was_running_is_asked_again_with_the_same_key_and_bytes(
    killable: World, server: Process
) -> None:
    gate = Gate()
    killable.worker.on("one", succeed({"id": "first"}))
    killable.worker.on("three", gate.before(), succeed())
    made = definition("d38", "one", "two", step("three", input={"of": "${steps.one.output.id}", "n": "${input.n}"}))
    await killable.start(made, {"n": 3.50})
    await gate.reached()
    await server.kill()
    await server.start()
    saga = await killable.settled("s")
    gate.release()
    assert saga.status is SagaStatus.COMPLETED
    assert killable.ledger.names("s") == ["one", "two", "three", "three"]
    first, second = killable.ledger.calls("s", "three")
    assert same_call(first, second)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.epoch > first.epoch
    assert saga.step("three").attempts == 2


@dataclass(frozen=True, slots=True)
class Withdrawal:
    amount: int


@dataclass(frozen=True, slots=True)
class Slip:
    number: int


def make_till(book: Till) -> tuple[Participant, Saga[Withdrawal, Slip], type]:
    """A participant that commits to a ledger of its own; and the type of its action."""
    till = Participant("till")

    @till.action(barrier=book.barrier)
    def withdraw(request: Withdrawal, call: Call, tx: Connection) -> Slip:
        return Slip(Book(tx, call.key).enter("withdrawn", "cash", -request.amount))

    @withdraw.compensation
    def put_back(request: Withdrawal, done: Slip, call: Call, tx: Connection) -> None:
        Book(tx, call.execute_key).enter("put back", "cash", request.amount)

    saga = Saga("withdrawal", input=Withdrawal, output=Slip)
    saga.returns(Slip(number=saga.step(withdraw).output.number))
    return till, saga, type(withdraw)


async def test_d39_a_commit_whose_reply_was_lost_has_its_effect_once(
    killable: World, server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, gate, keys = Till(), Gate(), list[str]()
    till, withdrawal, action_type = make_till(book)
    answer = action_type.execute

    async def take_time(action: Any, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
        keys.append(request.call.key)
        reply: saga_pb2.Reply = await answer(action, request)
        await gate.hold()  # after the commit
        return reply

    monkeypatch.setattr(action_type, "execute", take_time)
    with book.opened(tmp_path / "till.db", {"cash": 1000}):
        async with serving(till, orchestrator=server.address):
            saga = await killable.client.start(withdrawal, Withdrawal(150), id="s")
            await gate.reached()
            assert book.amounts() == {"cash": 850}
            await server.kill()
            gate.release()
            await server.start()
            slip = await saga.result()
        assert keys == ["default/s/withdraw/execute"] * 2
        assert [(entry.id, entry.kind, entry.amount) for entry in book.entries()] == [(slip.number, "withdrawn", -150)]
        assert book.amounts() == {"cash": 850}


@OVER_BOTH_LINKS
async def test_d40_a_rollback_goes_on_where_it_was(killable: World, server: Process) -> None:
    gate = Gate()
    names = ("one", "two", "three")
    for name in names:
        killable.worker.on(name, succeed({"made_by": name}))
    killable.worker.on("four", refuse("NO", "not today"))
    killable.worker.on("undo two", gate.before(), succeed())
    await killable.start(definition("d40", *names, "four"), {"n": 1})
    await gate.reached()
    await server.kill()
    await server.start()
    saga = await killable.settled("s")
    gate.release()
    assert saga.status is SagaStatus.COMPENSATED
    assert killable.ledger.names("s") == [*names, "four", "undo three", "undo two", "undo two", "undo one"]
    assert same_call(*killable.ledger.calls("s", "undo two"))
    for name in names:
        undo = killable.ledger.calls("s", f"undo {name}")[-1].compensate_request
        assert json.loads(undo.output.json) == {"made_by": name}
        assert json.loads(undo.input.json) == {"n": 1}
        assert undo.execute_key == killable.ledger.calls("s", name)[0].key
        assert undo.cause.step.error.message == "not today"
    assert killable.ledger.effects("s") == []
    assert saga.step("four").status is StepStatus.FAILED


@OVER_BOTH_LINKS
async def test_d43_sigterm_in_a_step_drains_and_leaves_no_trace(killable: World, server: Process) -> None:
    gate = Gate()
    killable.worker.on("two", gate.after(succeed({"n": 2})))
    saga = await killable.start(THREE)
    result = asyncio.create_task(saga.result())
    await gate.reached()
    stopping = asyncio.create_task(server.stop())
    await server.logged("stopping")
    gate.release()
    await stopping
    assert killable.ledger.names("s") == ["one", "two"]
    await server.start()
    assert await result == {"one": None, "two": {"n": 2}, "three": None}
    assert killable.ledger.names("s") == ["one", "two", "three"]
    assert [each.attempts for each in (await saga.status()).steps] == [1, 1, 1]


async def test_d43_those_who_wait_are_told_to_come_again(killable: World, server: Process) -> None:
    """They get all that was recorded, then a status that says to try again, and the server does not wait for them."""
    gate = Gate()
    killable.worker.on("two", gate.after())
    await killable.start(THREE)
    await gate.reached()
    waiting = asyncio.create_task(refused(killable.wire.orchestrator.GetSaga(GetSagaRequest(saga_id="s", wait=True))))
    watch = killable.wire.orchestrator.WatchSaga(WatchSagaRequest(saga_id="s"))
    told = [(await watch.read()).event.sequence for _ in range(4)]
    stopping = asyncio.create_task(server.stop())
    await server.logged("stopping")
    gate.release()
    told.append((await watch.read()).event.sequence)
    assert told == [1, 2, 3, 4, 5]
    for refusal in (await refused(watch.read()), await waiting):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    await stopping


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def test_d43_a_rollback_is_drained_too(killable: World, server: Process) -> None:
    gate = Gate()
    killable.worker.on("three", refuse("NO"))
    killable.worker.on("undo two", gate.before())
    await killable.start(THREE)
    await gate.reached()
    stopping = asyncio.create_task(server.stop())
    await server.logged("stopping")
    gate.release()
    await stopping
    assert killable.ledger.names("s") == ["one", "two", "three", "undo two"]
    await server.start()
    assert (await killable.settled("s")).status is SagaStatus.COMPENSATED
    assert killable.ledger.names("s") == ["one", "two", "three", "undo two", "undo one"]


async def test_d43_a_call_that_outlasts_the_drain_is_asked_again(tmp_path: Path) -> None:
    server, gate = Process(tmp_path / "amends.db", drain_s=0.2), Gate()
    async with World.opened(tmp_path, server) as world:
        world.worker.on("two", gate.before(), succeed())
        await world.start(THREE)
        await gate.reached()
        await server.restart()
        assert (await world.settled("s")).status is SagaStatus.COMPLETED
        gate.release()
        assert world.ledger.names("s") == ["one", "two", "two", "three"]
        assert world.ledger.effects_ever("s", "two") == 1


async def test_d43_sigterm_under_load_orphans_nothing(killable: World, server: Process) -> None:
    """Nothing is asked twice, and every start that clients repeat over the restart becomes one saga."""
    await killable.client.register(THREE)
    ids = [f"s{i}" for i in range(200)]
    ready = asyncio.Semaphore(20)

    async def one(name: str) -> SagaStatus:
        async with ready:
            saga = await killable.client.start("three", {"id": name}, id=name)
            return (await saga.wait()).status

    load = [asyncio.create_task(one(name)) for name in ids]
    await killable.ledger.until(lambda ledger: len(ledger.calls()) >= 60)
    await server.stop()
    calls = len(killable.ledger.calls())
    assert 60 <= calls < 3 * len(ids), "the server was to be stopped in the middle"
    await server.start()
    async with asyncio.timeout(2 * WAIT_S):
        assert set(await asyncio.gather(*load)) == {SagaStatus.COMPLETED}
    called = [(record.saga, record.name) for record in killable.ledger.calls()]
    assert sorted(called) == sorted((name, each) for name in ids for each in ("one", "two", "three"))


async def test_d44_a_backoff_goes_on_over_a_restart_and_is_not_early(killable: World, server: Process) -> None:
    killable.worker.on("two", system_error(), succeed())
    await killable.start(definition("d44", "one", step("two", interval_s=1.5)))
    scheduled = await killable.until("s", "step_retry_scheduled")
    await server.kill()
    await server.start()
    saga = await killable.settled("s")
    assert saga.status is SagaStatus.COMPLETED
    first, second = killable.ledger.calls("s", "two")
    assert same_call(first, second)
    due_time = scheduled.message.step_retry_scheduled.due_time.ToMicroseconds()
    [dispatched] = [
        e for e in await killable.journal() if e.kind == "step_dispatched" and (e.step, e.attempt) == ("two", 2)
    ]
    # Late by what a start takes, and by the lease of the dead, where a store has leases.
    assert due_time <= dispatched.message.time.ToMicroseconds() <= due_time + WAIT_S * 1_000_000
    assert killable.ledger.names("s") == ["one", "two", "two", "three"][:3]


async def test_d44_a_backoff_that_came_due_meanwhile_is_made_up_for(killable: World, server: Process) -> None:
    killable.worker.on("two", system_error(), succeed())
    killable.worker.on("undo one", system_error(), succeed(), saga="back")
    killable.worker.on("two", refuse("NO"), saga="back")
    made = definition("d44", step("one", interval_s=1), step("two", interval_s=1))
    await killable.start(made, id="forth")
    await killable.start(made, id="back")
    await killable.until("forth", "step_retry_scheduled")
    await killable.until("back", "compensation_retry_scheduled")
    await server.kill()
    await asyncio.sleep(1.1)  # the server has to be away when the time comes
    await server.start()
    assert (await killable.settled("forth")).status is SagaStatus.COMPLETED
    assert (await killable.settled("back")).status is SagaStatus.COMPENSATED
    assert killable.ledger.names("forth") == ["one", "two", "two"]
    assert killable.ledger.names("back") == ["one", "two", "undo one", "undo one"]
    assert killable.ledger.effects("back") == []


async def test_d44_a_long_backoff_is_as_it_was_and_can_be_cut_short(killable: World, server: Process) -> None:
    killable.worker.on("one", system_error("BUSY", "later"), succeed())
    await killable.start(definition("d44", step("one", interval_s=3600, interval_max_s=3600)))
    await killable.until("s", "step_retry_scheduled")
    before = await killable.client.get("s")
    await server.kill()
    await server.start()
    after = await killable.client.get("s")
    assert after == before
    assert str(after.step("one").error) == "BUSY: later"
    assert len(killable.ledger.calls("s")) == 1
    await killable.client.retry("s", reason="it is well again")
    assert (await killable.settled("s")).status is SagaStatus.COMPLETED
    assert [call.attempt for call in killable.ledger.calls("s")] == [1, 2]


@SQLITE_ONLY
async def test_d_a_second_server_on_the_file_is_told_who_holds_it(
    killable: World, server: Process, tmp_path: Path
) -> None:
    second = Process(tmp_path / "amends.db")
    with pytest.raises(RuntimeError, match=rf"amends\.db is in use by process {server.pid}\b"):
        await second.start()
    assert await second.wait() != 0
    assert not any("Traceback" in line for line in second.log), second.log
    assert (await killable.run(THREE)).status is SagaStatus.COMPLETED


async def test_d_a_second_server_on_the_port_is_told_who_holds_it(
    killable: World, server: Process, tmp_path: Path
) -> None:
    second = Process(tmp_path / "other.db", listen=server.address)
    with pytest.raises(RuntimeError, match=rf"{server.address} is taken by process {server.pid}\b"):
        await second.start()
    assert await second.wait() != 0
    assert not any("Traceback" in line for line in second.log), second.log
    assert (await killable.run(THREE)).status is SagaStatus.COMPLETED
    async with Client(server.address) as client:
        assert (await client.get("s")).status is SagaStatus.COMPLETED
