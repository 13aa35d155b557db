"""A replica whose wall clock is wrong: `python -m tests.store.astray URL NAME SECONDS` owns until it is killed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection

from amends_server.store.postgres.leases import Leases

LEASE_S = 1.0


def set_wall_clock(off_s: float) -> None:
    """Have this process take it for so much later than it is. What only ever grows is right, as on any machine."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + off_s
    time.time_ns = lambda: now_ns() + int(off_s * 1e9)


async def own(url: str, name: str) -> None:
    def ignore(gained: Collection[int] | None) -> None: ...

    await Leases(url, 64, LEASE_S).start(name, ignore, busy=tuple)
    await asyncio.Event().wait()


if __name__ == "__main__":
    set_wall_clock(float(sys.argv[3]))
    asyncio.run(own(*sys.argv[1:3]))
