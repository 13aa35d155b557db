"""The saga of docs/callbacks.md, with requests, callbacks, handled errors and conditions, at work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from amends import Call, Client, Participant, Refused
from amends_server.app import serving
from amends_server.config import load_settings
from tests.test_docs import run_code

Travel = Callable[..., Awaitable[str]]


class Services:
    """The services that the saga calls, and what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuse: dict[str, list[Refused]] = {}
        self.price = 100.0
        self.participants = [self._hotels(), self._bank(), self._post()]

    def _ask(self, name: str, what: str) -> None:
        if self.refuse.get(name):
            raise self.refuse[name].pop(0)
        self.asked.append(f"{name} {what}")

    def _hotels(self) -> Participant:
        hotels = Participant("hotels")

        @hotels.action
        async def book(request: dict[str, object]) -> object:
            self._ask("book", f"{request['city']} {request['nights']}")
            return {"hotel": "Ritz", "price": self.price}

        @book.compensation
        async def give_back(request: dict[str, object], done: object, call: Call) -> None:
            self.asked.append(f"give back: {call.arguments_as(dict[str, str])['reason']}")

        return hotels

    def _bank(self) -> Participant:
        bank = Participant("bank")

        @bank.action
        async def pay(request: dict[str, object]) -> str:
            self._ask("pay", f"{request['amount']}")
            return "P-1"

        @pay.compensation
        async def pay_back(request: dict[str, object], done: str | None) -> None:
            self.asked.append(f"pay back {request['amount']} {done}")

        return bank

    def _post(self) -> Participant:
        post = Participant("post")

        @post.action
        async def write(request: dict[str, object]) -> str:
            self._ask("write", f"{request['to']}: {request['text']}")
            return "L-1"

        return post


@pytest.fixture
def code() -> dict[str, Any]:
    return run_code("docs/callbacks.md")


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
async def travel(tmp_path: Path, code: dict[str, Any], services: Services) -> AsyncIterator[Travel]:
    settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path}/amends.db")
    hotels, bank, post = services.participants
    async with (
        serving(settings) as server,
        Client(server.address) as client,
        client.hosting(hotels),
        client.hosting(bank),
        client.hosting(post),
    ):

        async def go(*trip: object) -> str:
            result: str = await code["travel"](server.address, code["Trip"](*trip))
            return result

        yield go


PAID = ["book Rome 2", "pay 110.0"]
GIVEN_BACK = "give back: trip of Ada is off"


async def test_all_goes_well(travel: Travel, services: Services, code: dict[str, Any]) -> None:
    assert await travel("Ada", "rome", 2) == "Ritz"
    assert services.asked == [*PAID, "write Ada: Have a good journey to Rome"]
    assert list(code["records"].values()) == ["P-1"]


async def test_a_request_is_made_again_when_a_rule_says_so(travel: Travel, services: Services) -> None:
    services.refuse["book"] = [Refused("ASK_AGAIN"), Refused("ASK_AGAIN")]
    assert await travel("Ada", "rome", 2) == "Ritz"


async def test_a_handled_error_leads_to_another_request(travel: Travel, services: Services) -> None:
    services.refuse["book"] = [Refused("FULLY_BOOKED", "It is Easter.")]
    assert await travel("Ada", "rome", 2) == "no room"
    assert services.asked == ["write Ada: No room: It is Easter."]


async def test_a_callback_refuses_before_anything_is_asked(travel: Travel, services: Services) -> None:
    told = await travel("Ada", "rome", 31)
    assert told == "nothing booked: step shape: TOO_LONG: We let rooms for a month at the most."
    assert services.asked == []


async def test_a_callback_that_dislikes_a_reply_turns_the_saga_back(travel: Travel, services: Services) -> None:
    services.price = 501
    assert await travel("Ada", "rome", 2) == "nothing booked: step accept: TOO_DEAR: 501 for Ritz"
    assert services.asked == ["book Rome 2", GIVEN_BACK]


async def test_a_refused_request_takes_back_the_ones_before(travel: Travel, services: Services) -> None:
    services.refuse["pay"] = [Refused("NO_FUNDS")]
    assert await travel("Ada", "rome", 2) == "nothing booked: step pay: NO_FUNDS"
    assert services.asked == ["book Rome 2", GIVEN_BACK]


async def test_local_work_is_taken_back_in_its_turn(travel: Travel, services: Services, code: dict[str, Any]) -> None:
    services.refuse["write"] = [Refused("STRIKE")]
    assert await travel("Ada", "rome", 2) == "nothing booked: step wish: STRIKE"
    assert services.asked == [*PAID, "pay back 110.0 P-1", GIVEN_BACK]
    assert code["records"] == {}
