"""The check of every failure: sound participants pass it, and each kind of broken one shows up in its table."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

import amends
from amends import NOT_NEEDED, PIVOT, RETRIABLE, Call, Participant, Retry, Saga, on
from amends.testing import Case, Fault, Ledger, Report, Siblings, check_every_failure
from amends.testing.report import change
from participants.bank.accounts import ACCOUNTS, bank, ledger
from participants.bank.saga import Transfer, transfer
from participants.shop.inventory import Hold, reserve
from participants.shop.payment import Payment, charge
from participants.shop.saga import Order, order
from participants.shop.services import SERVICES
from participants.shop.shipping import Shipment, ship
from participants.shop.validation import Quote, validate
from tests.sdk.tills import Till
from tests.sources import ROOT

ORDER = Order(customer="ada", sku="tea", quantity=1, address="1 High Street")
RUNS_S_MAX = 2.0  # of the processor, for two hundred runs that take a fifth of it
OUTPUTS = {
    validate: Quote(amount=10),
    reserve: Hold(id="H", sku="tea", quantity=1),
    charge: Payment(id="P", customer="ada", amount=10),
    ship: Shipment(id="S", payment_id="P", tracking="T"),
}


def found(report: Report) -> set[tuple[str, bool, Fault]]:
    return {(f.case.step, f.case.compensation, f.case.fault) for f in report.findings}


# Simulated ledgers


def test_a_saga_with_barriers_passes() -> None:
    report = check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS))
    assert report.ok, report
    assert report.splitlines()[0] == f"order: {len(report.runs)} runs, and each ends with all effects or with none."
    assert len(report.runs) == 4 * 13 - 1 + 3 * 14  # a first step has no crash before its intent; one needs no undoing
    assert (report.impossible, report.never_called, report.other_ways) == ((), (), ())


def test_handlers_that_do_not_look_at_the_key_double_their_effects() -> None:
    report = check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS, barrier=[validate, reserve, ship]))
    assert not report
    assert {finding.effects.partition(":")[0] for finding in report.findings} == {"charge"}
    assert found(report) >= {
        ("charge", False, Fault.REPLY_LOST),
        ("charge", False, Fault.DUPLICATE),
        ("charge", False, Fault.CRASH_BEFORE_OUTCOME),
        ("charge", False, Fault.REPLY_LOST_EACH_TIME),
        ("charge", False, Fault.LATE),
        ("charge", False, Fault.LATE_DUPLICATE),
        ("charge", True, Fault.REPLY_LOST),
        ("charge", True, Fault.DUPLICATE),
        ("ship", False, Fault.CRASH_BEFORE_INTENT),
        ("reserve", True, Fault.CRASH_BEFORE_INTENT),
    }
    doubled = next(f for f in report.findings if f.case == Case("charge", False, Fault.DUPLICATE))
    assert (doubled.status, doubled.effects, doubled.wanted) == ("COMPLETED", "charge: 2", "charge: 1")


def test_without_any_barrier_each_step_that_counts_is_found() -> None:
    report = check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS, barrier=False))
    assert {step for step, _, fault in found(report) if fault is Fault.DUPLICATE} == {"reserve", "charge", "ship"}


def test_the_table_is_readable() -> None:
    report = check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS, barrier=[validate, reserve, ship]))
    lines = str(report).splitlines()
    assert lines[0] == f"order: 93 runs, and {len(report.findings)} of them end neither with all effects nor with none:"
    assert lines[2].split("  ")[0] == "step"
    [line] = [line for line in lines if line.startswith("charge") and "duplicate call" in line and "Execute" in line]
    assert line.split() == ["charge", "Execute", "duplicate", "call", "COMPLETED", "charge:", "2", "charge:", "1"]
    assert "The journal of the first, crash before the intent is durable of the compensation of reserve:" in lines
    rows = [line.split() for line in lines]
    assert ["duplicate", "call", "all", "all", "WRONG", "all"] in rows
    assert ["duplicate", "call", "none", "WRONG", "none"] in rows
    assert lines[-1] == "WRONG: see above."
    assert repr(report) == str(report)


def test_pytest_shows_the_whole_table(run_pytest: Callable[[str], str]) -> None:
    shown = run_pytest(
        "from tests.sdk.test_testing_check import ORDER, OUTPUTS, order\n"
        "from amends.testing import Ledger, check_every_failure\n"
        "def test_it():\n"
        "    report = check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS, barrier=False))\n"
        "    assert report.ok, report\n"
    )
    assert "reserve  Execute     duplicate call" in shown
    assert "saga_completed" in shown  # the end of the journal below the table
    assert "none: COMPENSATED, with no effect." in shown


@pytest.fixture
def run_pytest(tmp_path: Path) -> Callable[[str], str]:
    def run(text: str) -> str:
        test = tmp_path / "test_shown.py"
        test.write_text("from __future__ import annotations\n" + text, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), str(test)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    return run


parts = Participant("parts")
first = parts.declare("first", str, compensation=True)
second = parts.declare("second", str, compensation=True)
third = parts.declare("third", str, compensation=True)
wrap = parts.declare("wrap", str, str, compensation=True)
final = parts.declare("final", str)


def test_pivots_parallel_steps_and_steps_after_them_pass() -> None:
    saga = Saga("mixed", input=str)
    with saga.parallel():
        saga.step(first)
        saga.step(second)
    saga.step(first, id="look", compensation=NOT_NEEDED)
    saga.step(final, id="go", kind=PIVOT)
    saga.step(final, id="tell", kind=RETRIABLE)
    report = check_every_failure(saga, "x")
    assert report.ok, report
    assert len(report.runs) == 2 * (12 + 2 * 12) + 3 * 13 + 2 * (14 + 2 * 13)  # two of the steps have a sibling
    beside = {(run.case.step, run.case.compensation) for run in report.runs if run.case.siblings is Siblings.REPLYING}
    assert beside == {("first", False), ("second", False), ("first", True), ("second", True)}
    helped = {(run.case.step, run.case.compensation, run.case.fault) for run in report.runs if run.helped}
    assert helped == {
        *(
            ("tell", False, Fault.REFUSED),
            ("go", False, Fault.LOST_EACH_TIME),
            ("go", False, Fault.REPLY_LOST_EACH_TIME),
        ),
        *(
            (step, True, fault)
            for step in ("first", "second")
            for fault in (Fault.REFUSED, Fault.LOST_EACH_TIME, Fault.REPLY_LOST_EACH_TIME)
        ),
    }


def test_a_handler_that_does_not_look_at_the_key_shows_up_beside_siblings_too() -> None:
    saga = Saga("mixed", input=str)
    with saga.parallel():
        saga.step(first)
        saga.step(second)
    report = check_every_failure(saga, "x", ledger=Ledger(barrier=[first]))
    beside = [f for f in report.findings if f.case.step == "first" and not f.case.compensation]
    assert {f.effects for f in beside} == {"second: 2"}
    assert {f.case.siblings for f in beside} == {Siblings.REPLYING, Siblings.CALLED}
    assert all("crash" in f.case.fault for f in beside)
    assert "Execute, while its siblings' requests are under way  first  second" in report.splitlines()


def test_more_cases_than_the_limit_are_not_begun() -> None:
    runs = itertools.count()

    @contextmanager
    def counted() -> Iterator[None]:
        next(runs)
        yield

    with pytest.raises(ValueError, match="'order' has 93 cases, and limit=92 are the most that are run: raise it"):
        check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS), fresh=counted, limit=92)
    assert next(runs) == 1  # the one without a fault
    assert check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS), limit=93).ok


def test_a_definition_that_gives_up_too_early_is_found() -> None:
    saga = Saga("hasty", input=str)
    saga.step(first, compensation=amends.Compensation(retry=Retry(attempts=1)))
    saga.step(final, kind=PIVOT, retry=Retry(attempts=1))
    report = check_every_failure(saga, "x")
    assert ("first", True, Fault.LOST) in found(report)
    assert ("final", False, Fault.REPLY_LOST) in found(report)
    assert {finding.status for finding in report.findings} == {amends.SagaStatus.STUCK}
    assert {finding.wanted for finding in report.findings} == {"all or nothing"}


def test_a_retry_without_end_gets_through() -> None:
    saga = Saga("endless", input=str)
    saga.step(first, retry=Retry(attempts=-1))
    saga.step(second)
    report = check_every_failure(saga, "x")
    assert report.ok, report
    assert len(report.runs) == 12 + 13 + 14 + 14


def test_what_could_not_happen_is_not_counted() -> None:
    saga = Saga("endless", input=str)
    saga.step(first, retry=Retry(attempts=-1))  # nothing turns this saga round but a refusal, which leaves nothing
    report = check_every_failure(saga, "x")
    assert report.ok, report
    assert (len(report.runs), len(report.impossible)) == (12, 14)
    assert ["duplicate", "call", "-"] in [line.split() for line in report.splitlines()]
    assert report.splitlines()[-1] == "-: this cannot happen there."


# Other ways


def lenient() -> Saga[str, dict[str, object]]:
    saga = Saga("lenient", input=str)
    saga.step(first)
    wrapped = saga.step(wrap, on_error=[on("NO_PAPER").continue_with("")])
    with saga.when(wrapped.output == ""):
        saga.step(third)
    saga.step(final, kind=PIVOT)
    return saga


def test_a_run_that_goes_on_without_a_step_is_shown_and_judged() -> None:
    report = check_every_failure(lenient(), "x", ledger=Ledger(outputs={wrap: "paper"}))
    assert report.ok, report
    [run] = report.other_ways
    assert run.case == Case("wrap", False, Fault.REFUSED, code="NO_PAPER")
    assert (run.status, run.way) == (amends.SagaStatus.COMPLETED, "without wrap, with third")
    [row] = [line for line in report.splitlines() if line.startswith("refused: NO_PAPER ")]
    assert row.endswith(" without wrap, with third")
    assert report.splitlines()[-1] == "Never called without a fault, so never disturbed: third."


def test_a_hiccup_that_leads_another_way_is_found() -> None:
    weather, sent = Participant("weather"), dict[str, int]()

    @weather.action
    def ask(request: str, call: Call) -> str:
        return "fine" if call.attempt == 1 else "fine, after all"

    @weather.action
    def send(request: str, call: Call) -> None:
        sent[call.key] = 1

    saga = Saga("moody", input=str)
    asked = saga.step(ask, compensation=NOT_NEEDED)
    with saga.when(asked.output == "fine"):
        saga.step(send, saga.input, kind=PIVOT)
    report = check_every_failure(saga, "x", participants=[weather], effects=lambda: sum(sent.values()))
    hiccups = {finding.case.fault: finding for finding in report.findings if finding.case.step == "ask"}
    assert hiccups.keys() >= {Fault.LOST, Fault.REPLY_LOST, Fault.CRASH_AFTER_INTENT, Fault.CRASH_BEFORE_OUTCOME}
    lost = hiccups[Fault.LOST]
    assert (lost.status, lost.way, lost.effects, lost.wanted) == ("COMPLETED", "without send", "nothing", "1")
    assert report.other_ways == report.findings


def test_a_hiccup_that_leads_another_way_to_the_same_effects_is_found() -> None:
    weather = Participant("weather")

    @weather.action
    def ask(request: str, call: Call) -> str:
        return "fine" if call.attempt == 1 else "fine, after all"

    saga = Saga("moody", input=str)
    asked = saga.step(ask, compensation=NOT_NEEDED)
    with saga.when(asked.output == "fine"):
        saga.step(first, saga.input, compensation=NOT_NEEDED)
    saga.step(second, saga.input)
    report = check_every_failure(saga, "x", participants=[weather], effects=lambda: None)
    lost = next(finding for finding in report.findings if finding.case == Case("ask", False, Fault.LOST))
    assert (lost.effects, lost.wanted) == ("those of other steps", "the same steps as without a fault")
    assert lost.way == "without first"


def test_a_rule_that_retries_is_followed() -> None:
    saga = Saga("stubborn", input=str)
    saga.step(first, on_error=[on("BUSY").retry()])
    report = check_every_failure(saga, "x")
    assert report.ok, report
    assert ["refused:", "BUSY", "all"] in [line.split() for line in report.splitlines()]


def test_a_saga_that_fails_anyhow_is_no_subject() -> None:
    with pytest.raises(
        AssertionError, match=r"(?s)is COMPENSATED, not COMPLETED\. Give simulated steps.*OUTPUT_REFUSED"
    ):
        check_every_failure(order, ORDER)
    saga = Saga("idle", input=str)
    saga.step(first, compensation=NOT_NEEDED)
    with pytest.raises(AssertionError, match="no effect that is seen"):
        check_every_failure(saga, "x")


def test_it_is_deterministic_and_fast() -> None:
    begin = time.process_time()
    tables = {str(check_every_failure(order, ORDER, ledger=Ledger(outputs=OUTPUTS, barrier=False))) for _ in range(3)}
    assert len(tables) == 1
    assert time.process_time() - begin < RUNS_S_MAX


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 5, "c": 0}, {"b": 3}),
        ({"a": 1}, {}, {"a": -1}),
        ({"a": {"x": 1}}, {"a": {"x": 1}, "b": {"x": 0}}, None),
        ({"a": {"x": 1}}, {"b": {"x": 2}}, {"a": {"x": -1}, "b": {"x": 2}}),
        (3, 3, None),
        (Decimal("1.5"), Decimal("1.0"), Decimal("-0.5")),
        (["p"], ["p", "q"], ["p", "q"]),
        ({"a": "paid"}, {"a": None}, {"a": "gone"}),
        ({"a": "paid"}, {}, {"a": "gone"}),
        ({}, {"a": "paid"}, {"a": "paid"}),
        (True, False, False),
    ],
)
def test_changes_are_what_is_compared(before: object, after: object, wanted: object) -> None:
    assert change(before, after) == wanted


# Real handlers


def test_the_bank_passes(tmp_path: Path) -> None:
    with ledger.opened(tmp_path / "bank.db", ACCOUNTS):
        report = check_every_failure(transfer, Transfer("A", "B", 10), participants=[bank], effects=ledger.amounts)
    assert report.ok, report
    assert len(report.runs) == 13 - 1 + 13 + 14 + 14


def test_the_shop_passes(tmp_path: Path) -> None:
    def effects() -> dict[str, int]:  # parcels are kept by payment, and each run has another one
        return {name: sum(service.ledger.amounts().values()) for name, service in SERVICES.items()}

    with ExitStack() as stack:
        for name, service in SERVICES.items():
            stack.enter_context(service.ledger.opened(tmp_path / f"{name}.db", service.amounts))
        participants = [service.participant for service in SERVICES.values()]
        report = check_every_failure(order, ORDER, participants=participants, effects=effects)
        assert report.ok, report
        assert len(report.runs) == 93
        assert effects()["inventory"] < 175  # some of the runs completed


def test_a_fresh_ledger_for_each_run(tmp_path: Path) -> None:
    numbers = itertools.count()

    @contextmanager
    def fresh() -> Iterator[None]:
        with ledger.opened(tmp_path / f"{next(numbers)}.db", {"A": 10, "B": 0}):  # enough for one transfer
            yield

    report = check_every_failure(
        transfer, Transfer("A", "B", 10), participants=[bank], effects=ledger.amounts, fresh=fresh
    )
    assert report.ok, report
    assert next(numbers) == len(report.runs) + 1


def test_handlers_and_simulated_steps_go_together(tmp_path: Path) -> None:
    saga = Saga("both", input=str)
    saga.step(first)
    till = Till()
    saga.step(till.action)
    report = check_every_failure(
        saga, "x", participants=[till.participant], effects=till.effects, ledger=Ledger(barrier=False)
    )
    assert {step for step, _, fault in found(report) if fault is Fault.DUPLICATE} == {"first"}
    assert {finding.effects for finding in report.findings} >= {"ledger: (first: 2)"}


def test_somebody_must_say_what_handlers_have_done() -> None:
    with pytest.raises(ValueError, match="effects="):
        check_every_failure(transfer, Transfer("A", "B", 10), participants=[bank])


def test_crashes_are_real_for_participants() -> None:
    calls: dict[str, list[tuple[str, int, int]]] = {}
    desk = Participant("desk")

    def stamp(request: str, call: Call) -> str:
        calls.setdefault(call.saga_id, []).append((call.step, call.attempt, call.epoch))
        return "stamped"

    stamp.__annotations__ = {"request": str, "call": Call, "return": str}
    action = desk.action(stamp)
    saga = Saga("office", input=str)
    for step in ("one", "two"):
        saga.step(action, id=step, kind=RETRIABLE)
    check_every_failure(saga, "x", participants=[desk], effects=lambda: len(calls))
    seen = [tuple(history) for history in calls.values()]
    assert seen.count((("one", 1, 1), ("two", 2, 2))) == 2  # after the outcome of one, after the intent of two
    assert seen.count((("one", 2, 2), ("two", 1, 2))) == 1  # after the intent of one
    assert seen.count((("one", 1, 1), ("one", 2, 2), ("two", 1, 2))) == 2  # before: the outcome of one, two's intent
    assert seen.count((("one", 1, 1), ("two", 1, 1), ("two", 2, 2))) == 1  # before the outcome of two
