"""Partitions: which of a fixed number of parts a saga belongs to, for as long as its store lives."""

from __future__ import annotations

from zlib import crc32

from amends_server.store.protocol import SagaKey


def partition_of(key: SagaKey, partitions: int) -> int:
    """Return a number from 0 to below `partitions`, the same in every process and version."""
    return crc32(key.saga_id.encode(), crc32(key.namespace.encode() + b"\0")) % partitions
