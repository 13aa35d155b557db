"""Who owns what of a PostgreSQL database, as its tables say."""

from __future__ import annotations

from amends_server.engine.policy import Time
from amends_server.store.postgres.statements import Db, fetch
from amends_server.store.sharing import Sharing, StoredPartition, StoredReplica


async def sharing(now: Time, db: Db) -> Sharing:
    """Return replicas by address, and partitions by number."""
    replicas = [StoredReplica(**row) for row in await fetch(db, "replicas")]
    owned = ("owner", "claim_time", "lease_left_us")
    partitions = [
        StoredPartition(**(row if row["owner"] else {name: row[name] for name in row.keys() - owned}))
        for row in map(dict, await fetch(db, "shares", now=now))
    ]
    return Sharing(replicas, partitions)
