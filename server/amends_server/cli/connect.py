"""The way from a command to the orchestrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from amends.client.connection import Connection
from amends_server.addresses import Address, parse_address
from amends_server.cli.exits import usage_error

TIMEOUT_S = 10.0
"""Of one call: far above what it takes, and as long as a person waits."""

WATCH_RETRY_S = 15.0
"""How long a watch, or a wait, bears with an orchestrator that restarts."""


def checked_address(text: str, whose: str) -> Address:
    """An address from the command line."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise usage_error(f"The {whose}'s address cannot be used: {error}.") from None


@asynccontextmanager
async def connected(server: str, namespace: str = "", *, retry_s: float = 0) -> AsyncGenerator[Connection, None]:
    """Give a connection inside the block, to one orchestrator or to several with commas between.

    Without `retry_s` a call is made once, or once at each: a person wants to know at once.
    """
    target = ",".join(checked_address(each.strip(), "orchestrator").target for each in server.split(","))
    connection = Connection.open(target, namespace=namespace, timeout_s=TIMEOUT_S, retry_s=retry_s)
    try:
        yield connection
    finally:
        await connection.close()
