"""The sagas of docs/money-transfer.md, docs/orders.md and docs/coordinator.md, at work as the pages say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from amends import (
    Client,
    Compensated,
    DefinitionError,
    EventKind,
    FailedPrecondition,
    InvalidArgument,
    Participant,
    Refused,
    SagaStatus,
)
from amends_server.app import serving
from amends_server.config import load_settings
from participants.bank.accounts import ledger as accounts
from participants.shop.services import SERVICES
from tests.test_docs import blocks, run_code

WAIT_S = 30.0
ADA: dict[str, object] = {"traveller": "Ada", "budget": 300}
BOB: dict[str, object] = {"traveller": "Bob", "budget": 900}


@pytest.fixture
async def orchestrator(tmp_path: Path) -> AsyncIterator[str]:
    settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path}/amends.db")
    async with serving(settings) as server:
        yield server.address


async def printed(page: dict[str, Any], *arguments: object) -> str:
    """What `main` of a page prints; the server of the test logs to the same terminal, so its prints are collected."""
    lines: list[str] = []

    def collect(*values: object) -> None:
        lines.append(" ".join(map(str, values)) + "\n")

    page["print"] = collect
    await page["main"](*arguments)
    return "".join(lines)


async def test_the_transfers_end_as_the_page_says(orchestrator: str, tmp_path: Path) -> None:
    page = run_code("docs/money-transfer.md")
    assert [await printed(page, orchestrator, tmp_path / "bank.db")] == blocks("text", "docs/money-transfer.md")
    with accounts.opened(tmp_path / "bank.db"):
        assert accounts.amounts() == {"A": 850, "B": 650}
        assert [(entry.kind, entry.subject, entry.amount) for entry in accounts.entries()] == [
            ("debit", "A", -150),
            ("reversal", "A", 150),
            ("debit", "A", -150),
            ("credit", "B", 150),
        ]


async def test_the_orders_end_as_the_page_says(orchestrator: str, tmp_path: Path) -> None:
    page = run_code("docs/orders.md")
    assert [await printed(page, orchestrator, tmp_path)] == blocks("text", "docs/orders.md")
    assert {name: kinds(name, tmp_path) for name in ("inventory", "payment", "shipping")} == {
        "inventory": ["reserved", "reserved", "reserved", "released", "released"],
        "payment": ["charged", "charged", "refunded"],
        "shipping": ["shipped"],
    }


def kinds(name: str, folder: Path) -> list[str]:
    """What the ledger of a part of the shop holds, in an order that does not depend on its sagas'."""
    with SERVICES[name].ledger.opened(folder / f"{name}.db") as ledger:
        return sorted((entry.kind for entry in ledger.entries()), key=lambda kind: kind in ("released", "refunded"))


class Services:
    """The services of the coordinator's page, and what they did. Rooms are booked once `rooms` is set."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.rooms, self.asked_for_room = asyncio.Event(), asyncio.Event()
        self.rooms.set()
        self.strike = False
        self.participants = [self._airline(), self._hotel(), self._bank()]

    def _airline(self) -> Participant:
        airline = Participant("airline")

        @airline.action
        async def reserve(request: dict[str, object]) -> str:
            self.done.append("reserve")
            return f"a seat for {request['traveller']}"

        @reserve.compensation
        async def release(request: dict[str, object], done: object) -> None:
            if self.strike:
                raise Refused("STRIKE")
            self.done.append("release")

        return airline

    def _hotel(self) -> Participant:
        hotel = Participant("hotel")

        @hotel.action
        async def book(request: dict[str, object]) -> str:
            self.asked_for_room.set()
            await self.rooms.wait()
            self.done.append("book")
            return f"{request['nights']} nights"

        @book.compensation
        async def give_back(request: dict[str, object], done: object) -> None:
            self.done.append("give back")

        @hotel.action
        async def welcome(request: dict[str, object]) -> None:
            self.done.append(f"welcome {request['traveller']}")

        return hotel

    def _bank(self) -> Participant:
        bank = Participant("bank")

        @bank.action
        async def charge(request: dict[str, int]) -> None:
            if request["amount"] > 500:
                raise Refused("NO_FUNDS")
            self.done.append("charge")

        @charge.compensation
        async def refund(request: dict[str, int], done: object) -> None:
            self.done.append("refund")

        return bank


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def page() -> dict[str, Any]:
    return run_code("docs/coordinator.md")


@pytest.fixture
async def client(orchestrator: str, services: Services) -> AsyncIterator[Client]:
    airline, hotel, bank = services.participants
    async with (
        asyncio.timeout(WAIT_S),
        Client(orchestrator) as client,
        client.hosting(airline),
        client.hosting(hotel),
        client.hosting(bank),
    ):
        yield client
        services.rooms.set()


async def test_a_coordinator_creates_executes_and_tells_the_status(
    client: Client, services: Services, page: dict[str, Any]
) -> None:
    saga = await page["execute"](client, page["create"]("holiday"), "ada", ADA)
    assert await saga.result() == {"seat": "a seat for Ada", "room": "7 nights"}
    assert services.done == ["reserve", "book", "charge", "welcome Ada"]
    assert (
        await page["status"](client, "ada")
        == "COMPLETED: reserve SUCCEEDED, book SUCCEEDED, charge SUCCEEDED, welcome SUCCEEDED"
    )
    with pytest.raises(FailedPrecondition, match="completed"):
        await page["steer"](client, "ada", "cancel", "too late")


async def test_a_coordinator_is_told_at_once_what_cannot_work(orchestrator: str, page: dict[str, Any]) -> None:
    holiday = page["create"]("holiday")
    for action, said in (("taxi", "taxi"), ("hotel/book", "'book' already")):
        with pytest.raises(DefinitionError, match=said):
            holiday.step(action)
    async with Client(orchestrator) as client:
        with pytest.raises(InvalidArgument, match=r"PARTICIPANT_UNKNOWN.*airline"):
            await page["execute"](client, holiday, "ada", ADA)


async def test_a_coordinator_pauses_and_resumes(client: Client, services: Services, page: dict[str, Any]) -> None:
    services.rooms.clear()
    saga = await page["execute"](client, page["create"]("holiday"), "ada", ADA)
    await services.asked_for_room.wait()
    await page["steer"](client, "ada", "pause", "audit")
    services.rooms.set()
    await until(client, "ada", EventKind.STEP_SUCCEEDED, "book")
    assert await page["status"](client, "ada") == (
        "RUNNING (paused): reserve SUCCEEDED, book SUCCEEDED, charge PENDING, welcome PENDING"
    )
    assert services.done == ["reserve", "book"]
    await page["steer"](client, "ada", "resume", "audited")
    await saga.result()
    assert services.done == ["reserve", "book", "charge", "welcome Ada"]


async def test_a_coordinator_cancels(client: Client, services: Services, page: dict[str, Any]) -> None:
    services.rooms.clear()
    saga = await page["execute"](client, page["create"]("holiday"), "ada", ADA)
    await services.asked_for_room.wait()
    await page["steer"](client, "ada", "cancel", "no time")
    services.rooms.set()
    with pytest.raises(Compensated, match="no time"):
        await saga.result()
    assert services.done == ["reserve", "book", "give back", "release"]


async def test_a_coordinator_lists_what_needs_help_and_has_it_go_on(
    client: Client, services: Services, page: dict[str, Any]
) -> None:
    services.strike = True
    holiday = page["create"]("holiday")
    stuck = await page["execute"](client, holiday, "bob", BOB)
    assert (await stuck.wait()).status is SagaStatus.STUCK
    await (await page["execute"](client, holiday, "ada", ADA)).result()
    assert await page["listed"](client) == ["ada", "bob"]
    assert await page["listed"](client, SagaStatus.STUCK) == ["bob"]
    services.strike = False
    await page["steer"](client, "bob", "retry", "the strike is over")
    assert (await client.saga(None, "bob").wait()).status is SagaStatus.COMPENSATED
    assert services.done[:3] == ["reserve", "book", "give back"]
    assert services.done[-1] == "release"


async def until(client: Client, saga: str, kind: EventKind, step: str) -> None:
    async for event in client.saga(None, saga).watch():
        if (event.kind, event.step) == (kind, step):
            return
    raise AssertionError(f"saga {saga} ended without {kind} of {step}")
