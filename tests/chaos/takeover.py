"""The last act on several orchestrators: one is lost under load, and the others have to take over in time."""

from __future__ import annotations

import asyncio
import random
import time

from tests.chaos.nemesis import Story, Victims
from tests.chaos.node import Node
from tests.chaos.plan import Kind

LEASES_MAX = 2
"""Within this many lengths of a lease all sagas have an owner again."""

SETTLE_S = 30.0
POLL_S = 0.05

_OWNED = (
    "select count(*) = (select value from chaos.meta where name = 'partitions')"
    " from chaos.partition join chaos.replica on replica.id = partition.owner"
    " where partition.expires > clock_timestamp() and replica.address <> '{lost}'"
)


async def take_over(seed: int, servers: list[Node], victims: Victims, lease_s: float, story: Story) -> list[str]:
    """Lose an orchestrator, for good or for longer than its lease, and return what was not as it should be."""
    rng = random.Random(f"takeover {seed}")
    lost, kind = rng.choice(servers), rng.choice((Kind.KILL, Kind.PAUSE))
    try:
        async with asyncio.timeout(SETTLE_S):
            await _owned(victims, "nobody")
    except TimeoutError:
        return [f"all is healed, and not every partition has an owner after {SETTLE_S:.0f} s"]
    story.tell(f"{lost.name}: {kind}, and the others take over")
    began = time.monotonic()
    if kind is Kind.KILL:
        await lost.kill()
    else:
        lost.pause()
    try:
        async with asyncio.timeout(SETTLE_S):
            await _owned(victims, lost.proxy.address)
    except TimeoutError:
        return [f"nobody took over what {lost.name} had, {SETTLE_S:.0f} s after {kind}"]
    finally:
        took_s = time.monotonic() - began
        lost.go_on()
        await lost.start()
    story.tell(f"taken over after {took_s:.2f} s")
    return (
        [] if took_s <= LEASES_MAX * lease_s else [f"it took {took_s:.2f} s to take over, with leases of {lease_s} s"]
    )


async def _owned(victims: Victims, lost: str) -> None:
    """Wait until all partitions are owned by others than the one at that address."""
    cluster = victims.cluster
    assert cluster is not None, "several orchestrators share a cluster"
    while await asyncio.to_thread(cluster.sql, _OWNED.format(lost=lost)) != "t":  # noqa: ASYNC110 - only SQL tells
        await asyncio.sleep(POLL_S)
