"""Group C: retries, and the keys and replies of calls that are made again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from amends import EventKind, SagaStatus, StepStatus, encode, serving
from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2
from participants.bank.accounts import ACCOUNTS, Debit, bank
from participants.bank.accounts import ledger as accounts
from participants.ledger import Ledger
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    UNAVAILABLE,
    Answer,
    Gate,
    InProcess,
    World,
    definition,
    hang,
    refuse,
    status,
    step,
    succeed,
    system_error,
)
from tests.acceptance.till import till_of

SHORT_S = 0.5
"""Long enough for a call that is answered at once, on a machine that stands still for a moment."""

TRANSIENT = [
    UNAVAILABLE,
    system_error(),
    status(grpc.StatusCode.UNKNOWN),
    status(grpc.StatusCode.INTERNAL),
    status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many"),
    status(grpc.StatusCode.DEADLINE_EXCEEDED),
    status(grpc.StatusCode.CANCELLED),
]


@OVER_BOTH_LINKS
@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda answer: answer.outcome)
async def test_c28_a_flaky_step_is_called_until_it_answers(world: World, fault: Answer) -> None:
    world.worker.on("one", fault, fault, succeed("done"))
    saga = await world.run(definition("flaky", step("one", attempts=5), "two"))
    assert saga.status is SagaStatus.COMPLETED
    assert [each.attempts for each in saga.steps] == [3, 1]
    assert [record.attempt for record in world.ledger.calls("s", "one")] == [1, 2, 3]
    assert world.ledger.effects() == ["one", "two"]


@pytest.mark.parametrize(("attempts", "calls"), [(2, 2), (1, 1)])
async def test_c29_retries_end_at_the_limit_and_the_saga_turns_back(world: World, attempts: int, calls: int) -> None:
    world.worker.on("two", UNAVAILABLE)
    saga = await world.run(definition("limited", "one", step("two", attempts=attempts)))
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("two").attempts == calls
    assert world.ledger.names() == ["one", *["two"] * calls, "undo two", "undo one"]


@pytest.mark.parametrize("answer", [refuse("NO"), refuse("NO", stored=True)], ids=["plain", "stored"])
async def test_c30_a_business_error_is_not_tried_again(world: World, answer: Answer) -> None:
    world.worker.on("two", answer)
    saga = await world.run(definition("refused", "one", step("two", attempts=5)))
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("two").attempts == 1
    assert world.ledger.names() == ["one", "two", "undo one"]


@OVER_BOTH_LINKS
@pytest.mark.parametrize(
    ("stored", "undone"), [(False, ["undo two", "undo one"]), (True, ["undo one"])], ids=["plain", "stored"]
)
async def test_c30_a_business_error_says_nothing_of_the_attempts_before_it(
    world: World, stored: bool, undone: list[str]
) -> None:
    world.worker.on("two", UNAVAILABLE, refuse("NO", stored=stored))
    saga = await world.run(definition("refused", "one", "two"))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "two", *undone]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DATA_LOSS,
    ],
    ids=lambda code: code.name,
)
async def test_c30_a_status_that_would_come_again_is_not_asked_for_again(world: World, code: grpc.StatusCode) -> None:
    world.worker.on("two", status(code, effect=True))
    saga = await world.run(definition("pointless", "one", step("two", attempts=5)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    events = [event.kind for event in await world.journal() if event.step == "two"]
    assert EventKind.STEP_GIVEN_UP in events


async def test_c34_the_key_is_equal_over_retries_and_restarts_and_else_different(tmp_path: Path) -> None:
    orchestrator, gate = InProcess(tmp_path / "amends.db", drain_s=0), Gate()
    async with World.opened(tmp_path, orchestrator) as world:
        world.worker.on("one", UNAVAILABLE, gate.before(), gate.before(), succeed(), saga="s")
        world.worker.on("two", refuse())
        world.worker.on("undo one", UNAVAILABLE, succeed())
        handle = await world.start(definition("keyed", step("one", attempts=9), "two"), {"n": 1})
        await gate.reached()
        await orchestrator.restart()
        await gate.reached(2)
        await orchestrator.restart()
        saga = await world.settled(handle)
        await world.run(definition("keyed", step("one", attempts=9), "two"), {"n": 1}, id="other")
        gate.release()
    assert saga.status is SagaStatus.COMPENSATED
    calls = world.ledger.calls("s", "one")
    assert [record.attempt for record in calls] == [1, 2, 3, 4]
    epochs = [record.epoch for record in calls]
    assert len(set(epochs)) == 3
    assert epochs == sorted(epochs)
    requests = [record.execute_request for record in calls]
    for request in requests:
        for field in ("attempt", "epoch", "expire_time", "completion_token"):
            request.call.ClearField(field)
    assert requests == [requests[0]] * 4
    keys = [world.ledger.keys(saga_id, name) for saga_id in ("s", "other") for name in ("one", "two", "undo one")]
    assert [len(each) for each in keys] == [1] * 6
    assert len(set().union(*keys)) == 6


memory = Ledger()
effects: list[str] = []
careful = till_of(memory, effects)


@pytest.fixture
async def careful_world(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    pay = type(careful.actions["pay"])
    answer = pay.execute

    async def lose_the_first_two(action: Any, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
        reply = await answer(action, request)  # after the commit
        return reply if request.call.attempt == 3 else saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR)

    monkeypatch.setattr(pay, "execute", lose_the_first_two)
    effects.clear()
    with memory.opened(tmp_path / "memory.db"):
        async with serving(careful, orchestrator=world.orchestrator.address):
            yield world


async def test_c34_with_the_barrier_a_repeated_key_gets_the_stored_reply(careful_world: World) -> None:
    saga = await careful_world.run(definition("paying", step("pay", participant="till")), 7)
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("pay").attempts == 3
    assert len(effects) == 1
    assert memory.amounts() == {"till": 7}
    assert saga.step("pay").output.read(int) == memory.entries()[0].id


async def test_c34_with_the_barrier_a_repeated_key_gets_the_stored_refusal(careful_world: World) -> None:
    saga = await careful_world.run(definition("paying", step("pay", participant="till")), -7)
    assert saga.status is SagaStatus.COMPENSATED
    assert (saga.step("pay").status, saga.step("pay").attempts) == (StepStatus.FAILED, 3)
    assert saga.step("pay").compensation_attempts == 0, "a stored verdict holds for all attempts"
    assert len(effects) == 1
    assert memory.amounts() == {}


async def test_c34_the_bank_answers_a_repeated_call_as_the_first_one(tmp_path: Path) -> None:
    with accounts.opened(tmp_path / "bank.db", ACCOUNTS):
        async with serving(bank) as address, grpc.aio.insecure_channel(address) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            request = participant_pb2.ExecuteRequest(action="debit", input=encode(Debit("A", 10)))
            request.call.key = "k"
            first = await stub.Execute(request)
            request.call.attempt = 2
            again = await stub.Execute(request)
        assert first.reply.status == saga_pb2.REPLY_STATUS_SUCCESS
        assert again == first
        assert accounts.amounts() == {**ACCOUNTS, "A": ACCOUNTS["A"] - 10}


async def test_c35_two_attempts_that_end_at_once_count_once(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before(succeed("same")))
    handle = await world.start(definition("doubled", step("one", timeout_s=0.3, attempts=9), "two"))
    await gate.reached(2)
    gate.release()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("one").output.read(str) == "same"
    assert world.ledger.effects_ever("s", "one") == 1
    assert world.ledger.names().count("two") == 1
    done = [event.step for event in await world.journal() if event.kind is EventKind.STEP_SUCCEEDED]
    assert done == ["one", "two"]


async def test_c35_a_step_is_not_completed_by_the_same_reply_of_another(world: World) -> None:
    first, second = Gate(), Gate()
    world.worker.on("one", first.after(succeed("same")))
    world.worker.on("two", second.after(succeed("same")))
    handle = await world.start(definition("twins", step("one", after=[]), step("two", after=[])))
    await first.reached()
    await second.reached()
    first.release()
    await world.until("s", "step_succeeded", "one")
    assert [each.status for each in (await handle.status()).steps] == [StepStatus.SUCCEEDED, StepStatus.RUNNING]
    second.release()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPLETED
    done = [event.step for event in await world.journal() if event.kind is EventKind.STEP_SUCCEEDED]
    assert done == ["one", "two"]


@OVER_BOTH_LINKS
async def test_c35_replies_that_come_at_once_are_each_counted_once(world: World) -> None:
    gate, names = Gate(), [f"s{number:02}" for number in range(20)]
    for name in names:
        world.worker.on(name, gate.after(succeed("same")))
    parallel = [step(name, after=[]) for name in names]
    handle = await world.start(definition("chorus", *parallel, step("end", after=names)))
    await gate.reached(20)
    gate.release()
    assert (await world.settled(handle)).status is SagaStatus.COMPLETED
    *done, last = [event.step for event in await world.journal() if event.kind is EventKind.STEP_SUCCEEDED]
    assert sorted(map(str, done)) == names
    assert last == "end"
    assert world.ledger.names().count("end") == 1


@OVER_BOTH_LINKS
async def test_c36_an_answer_after_the_timeout_changes_nothing(world: World) -> None:
    gate = Gate()
    world.worker.on("two", gate.before(succeed("too late")))
    world.worker.on("undo two", succeed())
    handle = await world.start(definition("late", "one", step("two", timeout_s=SHORT_S, attempts=1), "three"))
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPENSATED
    journal = await world.journal()
    gate.release()
    await world.ledger.until(lambda ledger: "end two" in ledger.lines())
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects() == [], "what comes after its compensation has no effect"
    assert (await handle.status()).message == saga.message
    assert [event.message for event in await world.journal()] == [event.message for event in journal]
    [given_up] = [event for event in journal if event.kind is EventKind.STEP_GIVEN_UP]
    assert given_up.error is not None
    assert (given_up.step, given_up.error.code) == ("two", "TIMEOUT")
    assert not saga.step("two").output


@OVER_BOTH_LINKS
async def test_c36_an_answer_of_the_first_attempt_after_the_second_succeeded_changes_nothing(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before(succeed("first")), succeed("second"))
    handle = await world.start(definition("overtaken", step("one", timeout_s=SHORT_S), "two"))
    saga = await world.settled(handle)
    gate.release()
    await world.ledger.until(lambda ledger: ledger.lines().count("end one") == 2)
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("one").output.read(str) == "second"
    assert (await handle.status()).message == saga.message
    assert world.ledger.effects_ever("s", "one") == 1
    assert world.ledger.names() == ["one", "one", "two"]


@OVER_BOTH_LINKS
async def test_c36_a_call_that_never_answers_does_not_keep_the_saga(world: World) -> None:
    world.worker.on("one", hang(effect=True), succeed())
    saga = await world.run(definition("hanging", step("one", timeout_s=SHORT_S)))
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.effects() == ["one"]
