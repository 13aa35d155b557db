"""The in-process orchestrator of the test kit with real handlers: several sagas on one clock, and what it calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

import amends
from amends import Call, Participant, Refused, Retry, Saga
from amends.testing import Orchestrator, Scenario, given
from participants.bank.accounts import ACCOUNTS, bank, credit, debit, ledger
from participants.bank.saga import Transfer, transfer

TRANSFER = Transfer(source="A", destination="B", amount=10)


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[None]:
    with ledger.opened(tmp_path / "bank.db", ACCOUNTS):
        yield


@pytest.mark.usefixtures("accounts")
def test_handlers_run_without_a_server() -> None:
    saga = given(transfer, TRANSFER, participants=[bank]).completes()
    assert ledger.amounts() == {"A": 990, "B": 510}
    assert [step.status for step in saga.saga.steps] == [amends.StepStatus.SUCCEEDED] * 2


@pytest.mark.usefixtures("accounts")
def test_handlers_refuse_and_undo() -> None:
    to_nobody = Transfer(source="A", destination="nobody", amount=10)
    given(transfer, to_nobody, participants=[bank]).expect_compensated([debit])
    assert ledger.amounts() == ACCOUNTS
    assert [entry.kind for entry in ledger.entries()] == ["debit", "reversal"]


@pytest.mark.usefixtures("accounts")
def test_a_call_can_be_taken_out_of_its_handlers_hand() -> None:
    scenario = given(transfer, TRANSFER, participants=[bank])
    scenario.expect(credit).times_out().expect(credit).fails("no luck", after_effect=True)
    assert ledger.amounts() == {"A": 990, "B": 510}
    scenario.expect(credit).runs()
    assert scenario.saga.step("credit").attempts == 3
    scenario.completes()
    assert ledger.amounts() == {"A": 990, "B": 510}
    given(transfer, TRANSFER, participants=[bank]).expect(credit).refuses("CLOSED").expect_compensated([debit])
    assert ledger.amounts() == {"A": 990, "B": 510}


@pytest.mark.usefixtures("accounts")
async def test_it_works_inside_an_async_test() -> None:
    given(transfer, TRANSFER, participants=[bank]).completes()


def test_a_handler_that_is_not_there_is_said() -> None:
    with pytest.raises(LookupError, match="participants="):
        given(transfer, TRANSFER).expect(debit).runs()


@dataclass
class Clinic:
    """An async participant that keeps what it was asked."""

    participant: Participant = field(default_factory=lambda: Participant("clinic"))
    asked: list[str] = field(default_factory=list[str])
    deadlines: list[object] = field(default_factory=list[object])
    closed: bool = False

    def __post_init__(self) -> None:
        async def book(request: str, call: Call) -> str:
            await asyncio.sleep(0)
            self.asked.append(call.key)
            self.deadlines.append(call.deadline)
            if self.closed:
                raise ConnectionError("closed")
            if request == "nobody":
                raise Refused("UNKNOWN", "no such patient")
            return f"visit of {request}"

        async def undo(request: str, done: str | None, call: Call) -> None:
            self.asked.append(f"{call.key} of {done}")

        book.__annotations__ = {"request": str, "call": Call, "return": str}
        self.book = self.participant.action(book)
        self.book.compensation(undo)

    def saga(self, **options: float) -> Saga[str, dict[str, object]]:
        saga = Saga("visit", input=str, **options)
        # as good as without end; one without becomes slower and slower
        saga.step(self.book, retry=Retry(attempts=99_999, interval=60, interval_max=60, jitter=0))
        return saga


def test_nothing_happens_before_the_clock_is_moved() -> None:
    clinic = Clinic()
    orchestrator = Orchestrator([clinic.participant])
    one, two = (orchestrator.start(clinic.saga(), name, id=name) for name in ("ada", "bob"))
    assert (clinic.asked, one.saga.status) == ([], amends.SagaStatus.RUNNING)
    orchestrator.advance(0)
    assert clinic.asked == ["default/ada/book/execute", "default/bob/book/execute"]
    assert clinic.deadlines == [orchestrator.now + timedelta(seconds=30)] * 2
    assert [each.completes().saga.output.read(dict) for each in (one, two)] == [
        {"book": "visit of ada"},
        {"book": "visit of bob"},
    ]


def test_the_clock_brings_retries_when_they_are_due() -> None:
    clinic = Clinic(closed=True)
    orchestrator = Orchestrator([clinic.participant])
    begin = orchestrator.now
    saga = orchestrator.start(clinic.saga(), "ada", id="mine")
    for seconds, attempts in ((0, 1), (59, 1), (1, 2), (600, 12)):
        orchestrator.advance(seconds)
        assert (saga.saga.step("book").attempts, len(clinic.asked)) == (attempts, attempts)
    assert orchestrator.now - begin == timedelta(seconds=660)
    assert set(clinic.asked) == {"default/mine/book/execute"}
    with pytest.raises(AssertionError, match="more than 2000 things are due"):
        orchestrator.advance(10_000 * 60)


def test_time_stands_still_while_a_test_has_a_call_in_its_hand() -> None:
    clinic = Clinic(closed=True)
    saga = clinic.saga()
    home = saga.step(clinic.participant.declare("home", str, compensation=True), after=[])
    orchestrator = Orchestrator([clinic.participant])
    scenario = orchestrator.start(saga, "ada")
    begin = orchestrator.now
    visit = scenario.expect(home)
    with pytest.raises(AssertionError, match="Expected the saga to be COMPLETED"):
        scenario.completes()
    assert orchestrator.now == begin
    clinic.closed = False
    visit.replies(None).completes()
    assert orchestrator.now == begin + timedelta(seconds=60)


def test_the_deadline_ends_the_retries() -> None:
    clinic = Clinic(closed=True)
    scenario = given(clinic.saga(deadline=150), "ada", participants=[clinic.participant]).expect_compensated(
        [clinic.book]
    )
    assert len(clinic.asked) == 4
    assert clinic.asked[-1] == f"default/{scenario.saga.id}/book/compensate of None"
    took = scenario.journal[-1].time - scenario.journal[0].time
    assert took == timedelta(seconds=150)


def test_a_retry_without_end_is_noticed() -> None:
    clinic = Clinic(closed=True)
    with pytest.raises(AssertionError, match="not at rest"):
        given(clinic.saga(), "ada", participants=[clinic.participant]).completes()


def test_an_action_that_is_not_there_is_told_as_a_server_tells_it() -> None:
    clinic = Clinic()
    saga = Saga("other", input=str)
    saga.step(clinic.participant.declare("cure", str, compensation=True))
    scenario = given(saga, "ada", participants=[clinic.participant]).stuck("cure")
    problem = scenario.saga.step("cure").error
    assert problem is not None
    assert (problem.code, "no action cure" in problem.message) == ("UNIMPLEMENTED", True)


def test_runs_are_the_same_each_time() -> None:
    def journal() -> list[tuple[object, ...]]:
        clinic = Clinic()
        scenario: Scenario[dict[str, object]] = given(clinic.saga(), "ada", participants=[clinic.participant])
        scenario.expect(clinic.book).fails().completes()
        return [(event.time, event.kind, event.step, event.attempt) for event in scenario.journal]

    assert journal() == journal()
