"""The demo's orders, what the shop's ledgers hold, and what they should hold after the orders."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from amends.views import SagaStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order, how it should end, and the error that turns it back, if one does."""

    id: str
    customer: str
    quantity: int
    sku: str
    address: str
    because: str
    error: str = ""

    @property
    def input(self) -> str:
        """The input of its saga, as JSON."""
        fields = {"customer": self.customer, "sku": self.sku, "quantity": self.quantity, "address": self.address}
        return json.dumps(fields)

    @property
    def status(self) -> SagaStatus:
        """How it should end."""
        return SagaStatus.COMPENSATED if self.error else SagaStatus.COMPLETED

    def __str__(self) -> str:
        return f"{self.customer} orders {self.quantity} × {self.sku} for {self.address}"


ORDERS = (
    Order(id="order-1", customer="ada", quantity=4, sku="mug", address="Paris", because="all goes well"),
    Order(id="order-2", customer="bob", quantity=30, sku="pot", address="Oslo", because="stock", error="OUT_OF_STOCK"),
    Order(
        id="order-3", customer="cyd", quantity=4, sku="pot", address="Lima", because="funds", error="INSUFFICIENT_FUNDS"
    ),
    Order(
        id="order-4",
        customer="bob",
        quantity=10,
        sku="tea",
        address="Atlantis",
        because="shipping",
        error="ADDRESS_NOT_SERVED",
    ),
)
"""One that is completed, and one for each step that can turn an order back."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the shop's ledgers hold: pieces in stock, balances of customers, and how many parcels are on their way."""

    stock: dict[str, int]
    balances: dict[str, int]
    parcels: int

    def rows(self) -> Iterator[tuple[str, int]]:
        """Each amount with its name."""
        yield from ((f"stock of {sku}", amount) for sku, amount in self.stock.items())
        yield from ((f"balance of {customer}", amount) for customer, amount in self.balances.items())
        yield "parcels sent", self.parcels


def read_books(ledgers: Path) -> Books:
    """What the participants' own files say now."""
    return Books(
        stock=_amounts(ledgers / "inventory.db"),
        balances=_amounts(ledgers / "payment.db"),
        parcels=sum(_amounts(ledgers / "shipping.db").values()),
    )


def read_prices(ledgers: Path) -> dict[str, int]:
    """What the shop asks for a piece."""
    return _amounts(ledgers / "validation.db")


def expect(before: Books, prices: dict[str, int]) -> Books:
    """What the books must say after the orders: those that are completed have their effects, the others none."""
    stock, balances, parcels = dict(before.stock), dict(before.balances), before.parcels
    for order in ORDERS:
        if order.status is SagaStatus.COMPLETED:
            stock[order.sku] -= order.quantity
            balances[order.customer] -= order.quantity * prices[order.sku]
            parcels += 1
    return Books(stock, balances, parcels)


def _amounts(ledger: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows: list[tuple[str, int]] = connection.execute(
            "SELECT subject, amount FROM amount ORDER BY subject"
        ).fetchall()
    return dict(rows)
