"""Refusals of the server's parts, as clients get them over the wire."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import grpc

from amends.client.connection import naming_saga
from amends.statuses import exception_of_status
from amends_server.engine.commands import Rejected
from amends_server.errors import ServiceError
from amends_server.status import code_number, to_status

_CODES = {code_number(code): code for code in grpc.StatusCode}


@contextmanager
def as_starts_see_them(saga_id: str) -> Generator[None]:
    """Do the same inside the start of a saga, whose exceptions name it."""
    with naming_saga(saga_id), as_clients_see_them():
        yield


@contextmanager
def as_clients_see_them() -> Generator[None]:
    """Raise, in place of what the server's parts raise inside the block, what a client would be told.

    :raises RpcError: in place of these.
    """
    try:
        yield
    except (Rejected, ServiceError) as refusal:
        status = to_status(refusal)
        raise exception_of_status(_CODES[status.code], status.message, status) from None
