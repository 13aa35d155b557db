"""A process that executes or compensates one call and stands still at one place, to be killed there.

`python -m tests.barrier.crashing KIND PLACE PREFIX CALL STEP` prints `there` at the STEPth pause, and `end` if there is
none.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from itertools import count

from tests.barrier.kinds import KINDS
from tests.barrier.steps import Stepwise
from tests.barrier.world import World


async def main(name: str, place: str, prefix: str, called: str, step: int) -> None:
    numbers = count()

    async def pause(label: str) -> None:
        if next(numbers) == step:
            print("there", label, flush=True)
            sys.stdin.read()

    kind = next(kind for kind in KINDS if kind.name == name and kind.postgres == place.startswith("postgresql:"))
    async with AsyncExitStack() as stack:
        barrier = kind.make(place, stack)
        barrier._database = Stepwise(barrier._database, pause)
        world = World(barrier, kind.write, place, prefix=prefix)
        await (world.execute("a") if called == "execute" else world.compensate("a"))
        await pause("after commit")
    print("end", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5], step=int(sys.argv[5])))
