"""Ids for sagas that are given none."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from zlib import crc32

_RANDOM_BYTES = 10
"""With the milliseconds before them, as unlikely to meet again as a UUID."""

_ATTEMPTS = 200
"""To make an id of a share: one partition in 64 is found in 95 of 100 cases, and any other id will do, too."""


def new_saga_id() -> str:
    """Return an id of 32 hexadecimal digits.

    Later ones sort behind earlier ones, so that the store's index grows at its end: a saga under a random id costs the
    disk twice as much in a large file.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(_RANDOM_BYTES).hex()}"


def new_saga_id_of(namespace: str, partitions: int, owned: Collection[int]) -> str:
    """Return an id that is likely to belong to one of the partitions that are owned, of so many in all."""
    saga_id = new_saga_id()
    for _ in range(_ATTEMPTS):
        if partition_of(namespace, saga_id, partitions) in owned:
            break
        saga_id = new_saga_id()
    return saga_id


def partition_of(namespace: str, saga_id: str, partitions: int) -> int:
    """Return the number of the partition that a saga belongs to, as `amends.v1.Share` says."""
    return crc32(saga_id.encode(), crc32(namespace.encode() + b"\0")) % partitions
