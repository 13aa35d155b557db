"""Who owns what of a store: the orchestrators that share it, and the partitions that its sagas hash into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amends_server.engine.policy import Time


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReplica:
    """An orchestrator. `lease_left_us`: how long it counts as alive; less than nothing when it is dead."""

    id: str
    address: str
    start_time: Time
    lease_left_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPartition:
    """A part of the sagas. Without an owner, what belongs to one is not set. `due_count`: sagas that are due."""

    number: int
    owner: str = ""
    epoch: int
    claim_time: Time | None = None
    lease_left_us: int | None = None
    due_count: int
    oldest_due_time: Time | None


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a store is shared. One that has one owner has no replicas, and one partition without an owner."""

    replicas: Sequence[StoredReplica]
    partitions: Sequence[StoredPartition]
