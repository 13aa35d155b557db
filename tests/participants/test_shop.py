"""The shop: the steps of an order at its four participants, and what they leave behind when they are undone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from amends.payloads import decode
from participants.shop.inventory import STOCK, Hold, Reserve
from participants.shop.payment import BALANCES, Charge, Payment
from participants.shop.saga import order
from participants.shop.services import SERVICES, serving_shop
from participants.shop.shipping import Ship, Shipment
from participants.shop.validation import Quote, Validate
from tests.participants.calls import ERROR, SUCCESS, Caller, calling

END_S = 120.0
HOME = "1 High Street"

Shop = dict[str, Caller]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(serving_shop(tmp_path))
        yield {name: await stack.enter_async_context(calling(address)) for name, address in addresses.items()}


def amounts(name: str) -> dict[str, int]:
    return SERVICES[name].ledger.amounts()


async def test_b27_an_order_goes_through(shop: Shop) -> None:
    quote = decode((await shop["validation"].execute("validate", Validate("tea", 3), "v")).output, Quote)
    hold = decode((await shop["inventory"].execute("reserve", Reserve("tea", 3), "r")).output, Hold)
    charge = Charge("ada", quote.amount, hold.id)
    paid = decode((await shop["payment"].execute("charge", charge, "c")).output, Payment)
    sent = await shop["shipping"].execute("ship", Ship(HOME, hold.id, paid.id), "s")
    assert (sent.status, quote.amount) == (SUCCESS, 30)
    assert sent.related_services[0].reference == decode(sent.output, Shipment).tracking
    assert amounts("inventory") == {**STOCK, "tea": 97}
    assert amounts("payment") == {**BALANCES, "ada": 970}
    assert amounts("shipping") == {paid.id: 1}


@pytest.mark.parametrize(
    ("service", "action", "value", "code"),
    [
        ("validation", "validate", Validate("gold", 1), "UNKNOWN_SKU"),
        ("validation", "validate", Validate("tea", 0), "INVALID_QUANTITY"),
        ("validation", "validate", Validate("tea", 2**70), "INVALID_QUANTITY"),
        ("inventory", "reserve", Reserve("tea", 101), "OUT_OF_STOCK"),
        ("inventory", "reserve", Reserve("gold", 1), "UNKNOWN_SKU"),
        ("inventory", "reserve", Reserve("tea", -1), "INVALID_QUANTITY"),
        ("payment", "charge", Charge("cyd", 201, "h"), "INSUFFICIENT_FUNDS"),
        ("payment", "charge", Charge("eve", 1, "h"), "UNKNOWN_CUSTOMER"),
        ("payment", "charge", Charge("cyd", -1, "h"), "INVALID_AMOUNT"),
        ("shipping", "ship", Ship("3 Coral Lane, Atlantis", "h", "p"), "ADDRESS_NOT_SERVED"),
        ("shipping", "ship", Ship(" ", "h", "p"), "ADDRESS_NOT_SERVED"),
    ],
)
async def test_b27_what_cannot_be_done_is_refused_for_good(
    shop: Shop, service: str, action: str, value: object, code: str
) -> None:
    first = await shop[service].execute(action, value, "k")
    assert (first.status, first.error.code, first.stored) == (ERROR, code, True)
    assert first.error.message
    assert await shop[service].execute(action, value, "k", attempt=2) == first
    assert SERVICES[service].ledger.entries() == []


@pytest.mark.parametrize(
    ("service", "action", "value", "kinds"),
    [
        ("inventory", "reserve", Reserve("mug", 50), ["reserved", "released"]),
        ("payment", "charge", Charge("bob", 500, "h"), ["charged", "refunded"]),
        ("shipping", "ship", Ship(HOME, "h", "p"), ["shipped", "recalled"]),
    ],
)
async def test_b27_what_was_done_is_undone_once(
    shop: Shop, service: str, action: str, value: object, kinds: list[str]
) -> None:
    ledger = SERVICES[service].ledger
    before = ledger.amounts()
    assert (await shop[service].execute(action, value, "k")).status == SUCCESS
    assert ledger.amounts() != before
    undone = [await shop[service].compensate(action, value, "k") for _ in range(2)]
    assert [reply.status for reply in undone] == [SUCCESS, SUCCESS]
    assert {subject: amount for subject, amount in ledger.amounts().items() if amount} == before
    assert [entry.kind for entry in ledger.entries()] == kinds
    assert (await shop[service].compensate(action, value, "never")).status == SUCCESS
    assert (await shop[service].execute(action, value, "never")).error.code == "UNDONE"
    assert len(ledger.entries()) == 2


async def test_e47_orders_at_once_add_up(shop: Shop) -> None:
    holds = await asyncio.gather(*(shop["inventory"].execute("reserve", Reserve("tea", 1), f"r{n}") for n in range(20)))
    paid = await asyncio.gather(
        *(shop["payment"].execute("charge", Charge("ada", 10, "h"), f"c{n}") for n in range(20))
    )
    assert {reply.status for reply in [*holds, *paid]} == {SUCCESS}
    assert (amounts("inventory")["tea"], amounts("payment")["ada"]) == (80, 800)


async def test_only_as_much_as_there_is_goes_out(shop: Shop) -> None:
    replies = await asyncio.gather(
        *(shop["inventory"].execute("reserve", Reserve("pot", 2), f"r{n}") for n in range(20))
    )
    assert [reply.status for reply in replies].count(SUCCESS) == 12
    assert amounts("inventory")["pot"] == 1


def test_the_shop_is_a_process_and_each_part_can_be_one(tmp_path: Path) -> None:
    for options, names in (([], list(SERVICES)), (["--only", "inventory"], ["inventory"])):
        process = subprocess.Popen(
            [sys.executable, "-m", "participants.shop", "--db-dir", str(tmp_path), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in names]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=END_S)
        assert [line[:2] for line in lines] == [["ready", name] for name in names]
        assert (process.returncode, errors) == (0, "")


def test_the_order_saga_is_a_definition() -> None:
    steps = order.definition().steps
    assert [step.action for step in steps] == ["validate", "reserve", "charge", "ship"]
    assert [step.compensation.not_needed for step in steps] == [True, False, False, False]
