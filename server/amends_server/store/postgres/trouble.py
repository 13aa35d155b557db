"""What goes wrong with a PostgreSQL server, in sentences that say where and why, and never a password."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from amends_server.store.protocol import Unavailable

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""All that asyncpg raises for what is not a bug of ours."""

BAD_DATA = (
    asyncpg.DataError,  # text with a NUL or half a character, a number that is too large
    asyncpg.ProgramLimitExceededError,  # an entry of an index, or a row, that is larger than a page
)
"""What no state of the server makes good; nor does a row match such data."""

TRANSIENT = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,  # of two that make the same table, one may fail at its type
    asyncpg.InvalidCachedStatementError,  # another orchestrator has migrated: what was prepared is prepared anew
    asyncpg.OutdatedSchemaCacheError,
)
"""The transaction was rolled back because of another one: done again it finds what that one has written."""

_HAS_PORT = re.compile(r":\d+$")

_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidCatalogNameError, "does not exist: create it"),
    (asyncpg.InvalidSchemaNameError, "shows this user no schema of search_path: create it, or grant usage on it"),
    (asyncpg.InvalidAuthorizationSpecificationError, "does not let this user in: see name, password and pg_hba.conf"),
    (asyncpg.InsufficientPrivilegeError, "does not give this user the rights that are needed: grant them"),
    (asyncpg.ReadOnlySQLTransactionError, "can only be read: it is a standby, or set so"),
    (asyncpg.TargetServerAttributeNotMatched, "has no server that takes writes: is there a standby to be promoted?"),
    (asyncpg.TooManyConnectionsError, "has no connection left: raise max_connections"),
    (asyncpg.CannotConnectNowError, "is starting or stopping: wait for it"),
    (asyncpg.QueryCanceledError, "did not answer in time"),
    (asyncpg.PostgresConnectionError, "broke the connection off"),
    (asyncpg.AdminShutdownError, "broke the connection off"),
    (asyncpg.DiskFullError, "cannot grow: the disk is full"),
    (TimeoutError, "did not answer in time"),
    (OSError, "cannot be reached: see whether it runs there"),
)


class WrongServer(Unavailable):
    """The server is there, but cannot be used as it is."""


def place_of(url: str) -> str:
    """Return which database is meant, as `USER@HOST:PORT/DATABASE`."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2] or "localhost"  # several, with commas, where a standby may take over
    if "host" in query:
        hosts = query["host"][0] + ":" + query.get("port", ["5432"])[0]
    elif not _HAS_PORT.search(hosts):
        hosts += ":" + query.get("port", ["5432"])[0]
    user = unquote(parts.username) + "@" if parts.username else ""
    return f"{user}{hosts}{parts.path}"


def unavailable(place: str, error: Exception) -> Unavailable:
    """Say what happened to the database at that place."""
    what = next((sentence for kind, sentence in _SENTENCES if isinstance(error, kind)), "failed")
    code = getattr(error, "sqlstate", None)
    reason = (str(error) or type(error).__name__).rstrip(".") + (f", SQLSTATE {code}" if code else "")
    return Unavailable(f"The PostgreSQL database {place} {what} ({reason}).")
