"""Ids for sagas that are given none."""

from __future__ import annotations

import secrets
import time

_RANDOM_BYTES = 10
"""With the milliseconds before them, as unlikely to meet again as a UUID."""


def new_saga_id() -> str:
    """Return an id of 32 hexadecimal digits.

    Later ones sort behind earlier ones, so that the store's index grows at its end: a saga under a random id costs the
    disk twice as much in a large file.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(_RANDOM_BYTES)}"
