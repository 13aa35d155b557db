"""Group B, with the bank and the shop: their balances and stock say what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends import Compensated, SagaStatus, StepStatus, serving
from participants.bank.accounts import ACCOUNTS, bank
from participants.bank.accounts import ledger as accounts
from participants.bank.saga import Transfer, transfer
from participants.shop import inventory, payment, shipping
from participants.shop.saga import Order, Receipt, order
from participants.shop.services import serving_shop
from tests.acceptance.harness import World

STOCK = {"tea": 100, "mug": 50, "pot": 25}
BALANCES = {"ada": 1000, "bob": 500, "cyd": 200}

FAILED, PENDING = StepStatus.FAILED, StepStatus.PENDING
SUCCEEDED, COMPENSATED = StepStatus.SUCCEEDED, StepStatus.COMPENSATED


@pytest.fixture
async def bank_world(world: World, tmp_path: Path) -> AsyncIterator[World]:
    with accounts.opened(tmp_path / "bank.db", ACCOUNTS):
        async with serving(bank, orchestrator=world.orchestrator.address):
            yield world


@pytest.fixture
async def shop_world(world: World, tmp_path: Path) -> AsyncIterator[World]:
    async with serving_shop(tmp_path, orchestrator=world.orchestrator.address):
        yield world


async def test_b26_a_transfer_moves_the_money(bank_world: World) -> None:
    saga = await bank_world.client.start(transfer, Transfer("A", "B", 150), id="t")
    confirmation = await saga.result()
    assert accounts.amounts() == {"A": 850, "B": 650}
    assert [entry.amount for entry in accounts.entries()] == [-150, 150]
    assert (confirmation.debit_id, confirmation.credit_id) == ("P-1", "P-2")


async def test_b26_a_transfer_above_the_balance_changes_nothing(bank_world: World) -> None:
    saga = await bank_world.client.start(transfer, Transfer("A", "B", 1001), id="t")
    with pytest.raises(Compensated) as ended:
        await saga.result()
    assert "INSUFFICIENT_FUNDS" in str(ended.value)
    assert [step.status for step in ended.value.steps] == [FAILED, PENDING]
    assert accounts.amounts() == {"A": 1000, "B": 500}
    assert accounts.entries() == []


async def test_b26_a_transfer_to_nowhere_is_credited_back(bank_world: World) -> None:
    saga = await bank_world.client.start(transfer, Transfer("A", "nowhere", 150), id="t")
    with pytest.raises(Compensated) as ended:
        await saga.result()
    assert "UNKNOWN_ACCOUNT" in str(ended.value)
    assert [step.status for step in ended.value.steps] == [COMPENSATED, FAILED]
    assert accounts.amounts() == {"A": 1000, "B": 500}
    assert [(entry.kind, entry.amount) for entry in accounts.entries()] == [("debit", -150), ("reversal", 150)]


async def test_b26_three_transfers_in_a_row_add_up(bank_world: World) -> None:
    for number, amount in enumerate((100, 200, 50)):
        saga = await bank_world.client.start(transfer, Transfer("A", "B", amount), id=f"t{number}")
        await saga.result()
    assert accounts.amounts() == {"A": 650, "B": 850}


def assert_nothing_changed() -> None:
    assert inventory.ledger.amounts() == STOCK
    assert payment.ledger.amounts() == BALANCES
    assert set(shipping.ledger.amounts().values()) <= {0}


async def test_b27_an_order_is_reserved_charged_and_shipped(shop_world: World) -> None:
    saga = await shop_world.client.start(order, Order("ada", "tea", 3, "Paris"), id="o")
    receipt = await saga.result()
    assert isinstance(receipt, Receipt)
    assert (receipt.amount, receipt.payment_id) == (30, "PAY-1")
    assert receipt.tracking.startswith("TR-")
    view = await saga.status()
    assert view.status is SagaStatus.COMPLETED
    assert [(each.name, each.reference) for each in view.step("ship").message.related_services] == [
        ("carrier", receipt.tracking)
    ]
    assert inventory.ledger.amounts() == {**STOCK, "tea": 97}
    assert payment.ledger.amounts() == {**BALANCES, "ada": 970}
    assert shipping.ledger.amounts() == {"PAY-1": 1}


# The first step only looks at the order, so it needs no compensation: it stays SUCCEEDED, and says so.
FAILURES = {
    "too large a quantity": (
        Order("ada", "pot", 26, "Paris"),
        [SUCCEEDED, FAILED, PENDING, PENDING],
        "OUT_OF_STOCK: 26 pot wanted, 25 left",
    ),
    "insufficient funds": (
        Order("cyd", "tea", 21, "Paris"),
        [SUCCEEDED, COMPENSATED, FAILED, PENDING],
        "INSUFFICIENT_FUNDS: 210 due, cyd has 200",
    ),
    "shipping failure": (
        Order("bob", "mug", 2, "Atlantis"),
        [SUCCEEDED, COMPENSATED, COMPENSATED, FAILED],
        "ADDRESS_NOT_SERVED: no carrier goes to Atlantis",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_b27_a_failed_order_restores_stock_and_balances(shop_world: World, what: str) -> None:
    given, statuses, error = FAILURES[what]
    saga = await shop_world.client.start(order, given, id="o")
    with pytest.raises(Compensated) as ended:
        await saga.result()
    assert [step.status for step in ended.value.steps] == statuses
    [failed] = [step for step in ended.value.steps if step.status is FAILED]
    assert str(failed.error) == error
    assert error in str(ended.value)
    assert ended.value.steps[0].message.compensation_not_needed
    assert_nothing_changed()
    listed = [view.id async for view in shop_world.client.list(status=SagaStatus.COMPENSATED)]
    assert listed == ["o"]
