"""The one module that reads a source of randomness: names for what has none yet."""

from __future__ import annotations

import secrets

from amends_server.engine.policy import Time

_MILLISECOND_US = 1_000
_RANDOM_BYTES = 10
"""With the milliseconds before them, as unlikely to meet again as a UUID."""


def new_id(now: Time) -> str:
    """Return an id of 32 hexadecimal digits. Later ones sort behind earlier ones, which keeps an index compact."""
    return f"{now // _MILLISECOND_US:012x}{secrets.token_hex(_RANDOM_BYTES)}"
