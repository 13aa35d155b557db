"""The demo: four orders through an orchestrator and a shop, and whether the shop's books add up afterwards."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amends.client.connection import Connection
from amends.definition.builder import Saga
from amends.errors import AmendsError
from amends.participant.serve import stopped_by_signals
from amends.v1 import orchestrator_pb2
from amends.views import Cause, SagaStatus
from amends_server.cli.connect import WATCH_RETRY_S, connected
from amends_server.cli.demo.books import ORDERS, Books, Order, expect, read_books, read_prices
from amends_server.cli.demo.processes import Running, clone, free_address, running
from amends_server.cli.exits import CommandError
from amends_server.cli.options import ADDRESS, NAMESPACE
from amends_server.cli.output import emit, make_console
from amends_server.cli.sagas.screen import Manner, manner_of, show_live

PACE_S = 0.15
"""How long each event is seen at least on a terminal: a whole order takes only some milliseconds."""


async def run_demo(*, keep: bool = False, console: Console | None = None, manner: Manner | None = None) -> None:
    """Run the demo and write it to the console. With `keep`, it goes on until it is interrupted.

    :raises CommandError: if it does not end as it must, or cannot be run.
    """
    console = console or make_console()
    manner = manner or manner_of(console)
    clone()  # without one there is nothing to run, and nothing to keep
    folder = Path(tempfile.mkdtemp(prefix="amends-demo-"))
    added_up = False
    try:
        async with stopped_by_signals(), running(folder, free_address() if keep else "127.0.0.1:0") as parts:
            _introduce(console, parts)
            if problems := await _run_orders(console, manner, parts):
                raise CommandError("\n".join(problems))
            added_up = True
            if keep:
                _say_next(console, parts)
                await asyncio.Event().wait()
    except (AmendsError, CommandError) as error:
        raise CommandError(f"{error}\nThe logs, sagas and ledgers of this demo are kept in {folder}.") from error
    shutil.rmtree(folder, ignore_errors=True)
    if not added_up:
        raise CommandError("The demo was stopped before its end.")


async def _run_orders(console: Console, manner: Manner, parts: Running) -> list[str]:
    """Run the orders one after another and compare the books. Returns what is not as it should be."""
    before, prices = read_books(parts.ledgers), read_prices(parts.ledgers)
    problems: list[str] = []
    async with connected(parts.orchestrator, NAMESPACE, retry_s=WATCH_RETRY_S) as connection:
        digest = await _register(connection)
        for number, order in enumerate(ORDERS, start=1):
            console.print()
            console.print(_title(number, order, prices))
            problems += await _run_order(connection, digest, order, console, manner)
    after, expected = read_books(parts.ledgers), expect(before, prices)
    console.print()
    emit(console, _comparison(before, after, expected))
    problems += [
        f"The {name} is {amount} after the orders and not {wanted}."
        for (name, amount), (_, wanted) in zip(after.rows(), expected.rows(), strict=True)
        if amount != wanted
    ]
    if not problems:
        console.print()
        console.print(
            "It adds up: the completed order had its effects once, the three others left nothing behind.",
            style="bold green",
        )
    return problems


async def _register(connection: Connection) -> str:
    """Register the shop's saga, and return its digest."""
    sys.path.insert(0, str(clone()))  # the shop is beside the package, not in it
    order = cast("Saga[Any, Any]", importlib.import_module("participants.shop.saga").order)
    request = orchestrator_pb2.RegisterDefinitionRequest(namespace=NAMESPACE, definition=order.definition())
    response = await connection.repeatable(connection.orchestrator.RegisterDefinition, request)
    return response.definition.digest


async def _run_order(connection: Connection, digest: str, order: Order, console: Console, manner: Manner) -> list[str]:
    request = orchestrator_pb2.StartSagaRequest(namespace=NAMESPACE, saga_id=order.id)
    request.definition.digest, request.input.json = digest, order.input
    started = await connection.repeatable(connection.orchestrator.StartSaga, request)
    pace_s = PACE_S if manner is Manner.LIVE else 0
    await show_live(connection, started.saga, console=console, manner=manner, pace_s=pace_s)
    asked = orchestrator_pb2.GetSagaRequest(namespace=NAMESPACE, saga_id=order.id)
    saga = (await connection.repeatable(connection.orchestrator.GetSaga, asked)).saga
    status = SagaStatus.of(saga.status)
    cause = Cause.of(saga.cause) if saga.HasField("cause") else None
    error = cause.error.code if cause is not None and cause.error is not None else ""
    if manner is Manner.LINES:
        console.print(Text(f"  {order.id} is {status}" + (f" because of {cause}" if cause else "")))
    if (status, error) == (order.status, order.error):
        return []
    wanted = f"{order.status}{f' because of {order.error}' if order.error else ''}"
    return [f"{order.id} is {status}{f' because of {error}' if error else ''} and not {wanted}."]


def _introduce(console: Console, parts: Running) -> None:
    console.print(
        Text.assemble(("amends demo", "bold"), f"  orchestrator at {parts.orchestrator}, its sagas in SQLite")
    )
    shop = ", ".join(f"{name} at {address}" for name, address in parts.participants.items())
    console.print(f"The shop: {shop}", style="dim")


def _title(number: int, order: Order, prices: dict[str, int]) -> Text:
    costs = order.quantity * prices[order.sku]
    fate = f"refused: {order.because}" if order.error else order.because
    return Text.assemble((f"{number}. {order}", "bold"), f", which costs {costs}", (f"  ({fate})", "dim"))


def _comparison(before: Books, after: Books, expected: Books) -> Table:
    table = Table(
        title="The books of the shop, read from its own ledgers",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
        header_style="dim",
    )
    table.add_column("")
    for head in ("BEFORE", "AFTER", "EXPECTED"):
        table.add_column(head, justify="right")
    table.add_column("")
    for (name, was), (_, now), (_, wanted) in zip(before.rows(), after.rows(), expected.rows(), strict=True):
        right = now == wanted
        mark = Text("right", "green") if right else Text("WRONG", "bold red")
        table.add_row(name, str(was), Text(str(now), "bold" if was != now else ""), str(wanted), mark)
    return table


def _say_next(console: Console, parts: Running) -> None:
    server = "" if parts.orchestrator == ADDRESS else f" --server {parts.orchestrator}"
    amends = _program()
    order = '{"customer": "ada", "sku": "tea", "quantity": 2, "address": "Oslo"}'
    lines = [
        f"{amends} list{server}",
        f"{amends} show order-4{server}",
        f"{amends} watch order-3{server}",
        f"{amends} start order --input '{order}' --wait{server}",
        f"{amends} definitions show order{server}",
        f"{amends} participants list{server}",
    ]
    console.print("\nIt goes on running until you press Ctrl-C. In another terminal, type for example:")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _program() -> str:
    """How to call this program from the current folder."""
    program = Path(sys.argv[0])
    if program.name != "amends":
        return f"{sys.executable} -m amends_server.cli"
    found = shutil.which("amends")
    if found is not None and Path(found).resolve() == program.resolve():
        return "amends"
    inside = program.absolute().is_relative_to(Path.cwd())
    return str(program.absolute().relative_to(Path.cwd()) if inside else program.absolute())
