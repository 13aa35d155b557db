"""The shop's participants with their ledgers, served in one process, each on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from amends.participant.participant import Participant
from amends.participant.serve import serving
from participants.ledger import Ledger
from participants.shop import inventory, payment, shipping, validation


@dataclass(frozen=True, slots=True)
class Service:
    """A participant, its ledger, and the amounts that a new ledger begins with."""

    participant: Participant
    ledger: Ledger
    amounts: Mapping[str, int]


SERVICES = {
    "validation": Service(validation.validation, validation.ledger, validation.PRICES),
    "inventory": Service(inventory.inventory, inventory.ledger, inventory.STOCK),
    "payment": Service(payment.payment, payment.ledger, payment.BALANCES),
    "shipping": Service(shipping.shipping, shipping.ledger, {}),
}


@asynccontextmanager
async def serving_shop(
    db_dir: Path,
    *,
    only: Iterable[str] = tuple(SERVICES),
    listen: str = "127.0.0.1:0",
    orchestrator: str | None = None,
) -> AsyncGenerator[dict[str, str], None]:
    """Serve the participants inside the block, which gets their addresses by name. Ledgers are `db_dir/NAME.db`.

    The first one listens at `listen`, the others on the ports after it; port 0 is a free one for each.
    """
    async with AsyncExitStack() as stack:
        addresses: dict[str, str] = {}
        for place, name in enumerate(only):
            service = SERVICES[name]
            stack.enter_context(service.ledger.opened(db_dir / f"{name}.db", service.amounts))
            served = serving(service.participant, listen=_nth_port(listen, place), orchestrator=orchestrator)
            addresses[name] = await stack.enter_async_context(served)
        yield addresses


def _nth_port(listen: str, place: int) -> str:
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + place}" if port.isdecimal() and int(port) else listen
