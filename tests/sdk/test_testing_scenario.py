"""Scenarios of the test kit: the calls of a saga, line by line, with scripted answers and a clock that stands still."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

import amends
import amends.testing
from amends import PIVOT, Participant, Retry, Saga
from amends.testing import given
from participants.shop.inventory import Hold, Reserve, reserve
from participants.shop.payment import Charge, Payment, charge
from participants.shop.saga import Order, Receipt, order
from participants.shop.shipping import Ship, Shipment, ship
from participants.shop.validation import Quote, Validate, validate

ORDER = Order(customer="ada", sku="tea", quantity=3, address="1 High Street")


def test_an_order_goes_through() -> None:
    scenario = (
        given(order, ORDER)
        .expect(validate, Validate(sku="tea", quantity=3))
        .replies(Quote(amount=30))
        .expect(reserve, Reserve(sku="tea", quantity=3))
        .replies(Hold(id="H-1", sku="tea", quantity=3))
        .expect(charge, Charge(customer="ada", amount=30, hold_id="H-1"))
        .replies(Payment(id="P-1", customer="ada", amount=30))
        .expect(ship, Ship(address="1 High Street", hold_id="H-1", payment_id="P-1"))
        .replies(Shipment(id="S-1", payment_id="P-1", tracking="TR-1"))
        .completes(Receipt(amount=30, payment_id="P-1", tracking="TR-1"))
    )
    assert scenario.saga.output.read(Receipt).tracking == "TR-1"
    assert scenario.journal[-1].kind is amends.EventKind.SAGA_COMPLETED
    assert scenario.journal[-1].status is amends.SagaStatus.COMPLETED
    assert [event.sequence for event in scenario.journal] == list(range(1, 11))


def test_a_refusal_undoes_what_was_done() -> None:
    scenario = (
        given(order, ORDER)
        .expect(validate)
        .replies(Quote(amount=30))
        .expect(reserve)
        .replies(Hold(id="H-1", sku="tea", quantity=3))
        .expect(charge)
        .refuses("INSUFFICIENT_FUNDS", "20 left")
        .expect_compensated([reserve])
    )
    cause = scenario.saga.cause
    assert cause is not None
    assert cause.error is not None
    assert (cause.step, cause.error.code, cause.error.participant) == ("charge", "INSUFFICIENT_FUNDS", "payment")


def test_an_unknown_outcome_is_retried_and_then_undone_too() -> None:
    scenario = given(order, ORDER).expect(validate).replies(Quote(30)).expect(reserve).fails(ConnectionError("reset"))
    with pytest.raises(AssertionError, match=r"no|none now"):
        scenario.expect(reserve)
    scenario.after(0.1)
    with pytest.raises(AssertionError, match="there is none now"):
        scenario.expect(reserve)
    scenario.after(0.1).expect(reserve).times_out().when_due().expect(reserve).fails("no luck")
    scenario.expect_compensation(reserve).fails().when_due().expect_compensated([reserve])
    assert scenario.saga.step("reserve").attempts == 3
    assert scenario.saga.step("reserve").compensation_attempts == 2


def test_a_timeout_takes_its_time() -> None:
    saga = Saga("slow", input=Reserve)
    saga.step(reserve, timeout=12, retry=Retry(attempts=1))
    scenario = given(saga, Reserve("tea", 1))
    before = scenario.journal[0].time
    scenario.expect(reserve, Reserve("tea", 1)).times_out()
    assert (scenario.journal[-1].time - before).total_seconds() == 12


def test_a_timeout_ends_with_the_deadline_of_its_step() -> None:
    saga = Saga("slow", input=Reserve)
    saga.step(reserve, timeout=12, deadline=5, retry=Retry(attempts=2, interval=1))
    scenario = given(saga, Reserve("tea", 1)).expect(reserve).times_out()
    assert (scenario.journal[-1].time - scenario.journal[0].time).total_seconds() == 5


@dataclass(frozen=True, slots=True)
class Trip:
    guests: int


travel = Participant("travel")
flight = travel.declare("flight", Trip, str, compensation=True)
hotel = travel.declare("hotel", Trip, str, compensation=True)
pay = travel.declare("pay", Trip)


def trip() -> Saga[Trip, dict[str, object]]:
    saga = Saga("trip", input=Trip, deadline=60)
    with saga.parallel():
        saga.step(flight)
        saga.step(hotel)
    saga.step(pay, kind=PIVOT, retry=Retry(attempts=2))
    return saga


def test_parallel_steps_are_expected_in_any_order() -> None:
    scenario = given(trip(), Trip(2)).expect(hotel, Trip(2)).replies("H").expect(flight, Trip(2)).replies("F")
    scenario.expect(pay).replies(None).completes({"flight": "F", "hotel": "H", "pay": None})


def test_i6_a_call_in_flight_is_waited_for_before_it_is_undone() -> None:
    scenario = given(trip(), Trip(2))
    booking = scenario.expect(flight)
    scenario.expect(hotel).refuses("FULL")
    with pytest.raises(AssertionError, match="waits for answers to flight, attempt 1"):
        scenario.compensated()
    booking.replies("F").expect_compensated([flight])


def test_a_call_is_expected_once_and_in_its_direction() -> None:
    scenario = given(trip(), Trip(2))
    booking = scenario.expect(flight)
    with pytest.raises(AssertionError, match="Expected a call of travel/flight, and there is none now"):
        scenario.expect(flight)
    scenario.expect(hotel).refuses("FULL")
    booking.replies("F")
    with pytest.raises(AssertionError, match="Expected a call of travel/flight, and there is none now"):
        scenario.expect(flight)
    with pytest.raises(AssertionError, match="call of the compensation of travel/hotel, and there is none"):
        scenario.expect_compensation(hotel)
    scenario.expect_compensation(flight).succeeds().compensated()


def test_an_undoing_that_is_not_whole_is_no_end() -> None:
    saga = Saga("trip", input=Trip, on_compensation_failure=amends.OnCompensationFailure.CONTINUE)
    for action in (flight, hotel):
        saga.step(action)
    saga.step(pay, kind=PIVOT)
    scenario = given(saga, Trip(2)).expect(flight).replies("F").expect(hotel).replies("H").expect(pay).refuses("NO")
    scenario.expect_compensation(hotel).refuses("NO")
    with pytest.raises(AssertionError, match=r"Expected the saga to be COMPENSATED\.\nNow it is STUCK"):
        scenario.expect_compensated([flight])
    scenario.stuck(hotel)


def test_an_answer_after_the_end_changes_nothing() -> None:
    scenario = given(trip(), Trip(2))
    late = scenario.expect(flight)
    scenario.restarts().expect(flight).replies("F").expect(hotel).refuses("FULL")
    scenario.expect_compensated([hotel, flight])  # the first attempt at the hotel was lost: who knows what it did
    events = len(scenario.journal)
    late.replies("G").compensated()
    assert len(scenario.journal) == events


def test_the_deadline_turns_the_saga_round_when_the_clock_is_there() -> None:
    scenario = given(trip(), Trip(2)).expect(flight).replies("F").after(59.9)
    call = scenario.expect(hotel)
    scenario.after(0.1)
    call.replies("H").expect_compensated([hotel, flight])
    assert scenario.saga.cause is not None
    assert scenario.saga.cause.kind is amends.CauseKind.DEADLINE


def test_operators_lead_on_from_stuck() -> None:
    def stuck() -> amends.testing.Scenario[dict[str, object]]:
        scenario = given(trip(), Trip(2)).expect(flight).replies("F").expect(hotel).replies("H")
        return scenario.expect(pay).fails().when_due().expect(pay).fails().stuck(pay)

    stuck().retry("the bank is back").expect(pay).replies(None).completes()
    stuck().resolve("pay", amends.Resolution.SUCCEEDED, reason="seen").completes()
    back = stuck().resolve("pay", amends.Resolution.COMPENSATED).expect_compensation(hotel).refuses("NO")
    back.expect_compensation(flight).succeeds().stuck(hotel)
    with pytest.raises(AssertionError, match="stuck in pay, not in flight"):
        stuck().stuck(flight)
    with pytest.raises(amends.FailedPrecondition) as rejected:
        stuck().cancel("enough")
    assert rejected.value.reason == "PIVOT_DISPATCHED"


def test_a_cancel_turns_the_saga_round() -> None:
    scenario = given(trip(), Trip(2)).expect(flight).replies("F").expect(hotel).replies("H")
    given(trip(), Trip(2)).cancel("no").expect(flight).refuses("X").expect(hotel).refuses("X").compensated()
    with pytest.raises(AssertionError, match=r"Expected the saga to be COMPENSATED"):
        scenario.compensated()


def test_steps_of_one_action_are_told_apart() -> None:
    saga = Saga("legs", input=Trip)
    out = saga.step(flight, Trip(guests=saga.input.guests), id="out")
    back = saga.step(flight, Trip(guests=1), id="back")
    scenario = given(saga, Trip(2)).expect(out, Trip(2)).replies("O").expect("back", Trip(1)).replies("B").completes()
    assert scenario.saga.step("out").output.read(str) == "O"
    scenario = given(saga, Trip(2)).expect(flight, Trip(2)).replies("O").expect(back).refuses("FULL")
    with pytest.raises(AssertionError, match="travel/flight must be one step of the saga, and out, back are; name one"):
        scenario.expect_compensated([flight])
    scenario.expect_compensated([out])


def test_another_request_is_shown_line_by_line_with_the_journal() -> None:
    scenario = given(order, ORDER).expect(validate).replies(Quote(30))
    with pytest.raises(AssertionError) as failed:
        scenario.expect(reserve, Reserve(sku="tea", quantity=4))
    text = str(failed.value)
    assert text.startswith("inventory/reserve is called with another request.\n- wanted\n+ got\n")
    assert '-   "quantity": 4,\n+   "quantity": 3,\n' in text
    assert "Now it is RUNNING, and waits for answers to reserve, attempt 1." in text
    assert "   1  validate #1 is called with key default/order-1/validate/execute and {" in text
    assert '   2  validate #1 succeeds with {"amount":30}\nThe journal so far:\n' in text
    assert re.search(r"^   3     \+0\.000 s  step_succeeded +validate #1$", text, re.MULTILINE)


def test_other_ends_are_shown() -> None:
    refused = given(order, ORDER).expect(validate).refuses("UNKNOWN_SKU")
    with pytest.raises(AssertionError, match=r"Expected the saga to be COMPLETED\.\nNow it is COMPENSATED\."):
        refused.completes()
    with pytest.raises(AssertionError, match=r"Expected the saga to be STUCK"):
        refused.stuck()
    with pytest.raises(AssertionError, match=r'(?s)in another order.*-   "reserve"'):
        refused.expect_compensated([reserve])
    with pytest.raises(AssertionError, match="no step for travel/flight"):
        refused.expect(flight)
    done = given(trip(), Trip(1)).expect(flight).replies("F").expect(hotel).replies("H").expect(pay).replies(None)
    with pytest.raises(AssertionError, match=r'(?s)another output.*-   "flight": "G",\n\+   "flight": "F",'):
        done.completes({"flight": "G", "hotel": "H", "pay": None})
    with pytest.raises(AssertionError, match="Nothing becomes due"):
        done.when_due()


def test_a_definition_that_no_server_would_take_is_refused() -> None:
    saga = Saga("wrong", input=Trip)
    saga.step(pay, kind=PIVOT)
    saga.step(flight)
    with pytest.raises(amends.DefinitionError):
        given(saga, Trip(1))


def test_data_that_no_server_would_take_is_refused() -> None:
    with pytest.raises(amends.ResourceExhausted, match="1048576") as refused:
        given(texts(), "x" * (1 << 20))
    assert refused.value.reason == "PAYLOAD_TOO_LARGE"
    with pytest.raises(amends.PayloadError):
        given(texts(), "x").expect("a").replies(object())


def texts() -> Saga[str, dict[str, object]]:
    saga = Saga("text", input=str)
    saga.step(Participant("p").declare("a", str, compensation=True))
    return saga
