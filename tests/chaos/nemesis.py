"""Does to a world what the plan says, and tells what it did when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from tests.chaos.database import Cluster
from tests.chaos.disk import Disk
from tests.chaos.node import Node
from tests.chaos.plan import Kind, Strike
from tests.chaos.proxy import Proxy, Trap

LIMIT_BYTES = 65_536
"""Where writes fail when files are limited: in the first pages of any database."""

LATE_S = 0.7
"""Later than whoever sent the COMMIT looks whether it was carried out."""

AGAIN_S = 0.5
COME_UP_S = 45.0


class Story:
    """What happened, line by line, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[str] = []

    def tell(self, what: str) -> None:
        self.lines.append(f"{time.monotonic() - self._began:8.2f} s  {what}")


@dataclass(frozen=True, slots=True)
class Victims:
    """What can be hurt, by the names of the plan's targets."""

    nodes: Mapping[str, Node]
    proxies: Mapping[str, Proxy]
    disks: Mapping[str, Disk]
    cluster: Cluster | None = None


class Nemesis:
    """Hurts, and heals what it has hurt."""

    def __init__(self, victims: Victims, story: Story) -> None:
        self._victims = victims
        self._story = story
        self._locks = {name: asyncio.Lock() for name in (*victims.proxies, "database")}

    async def run(self, strikes: Sequence[Strike]) -> None:
        """Carry the plan out; returns when all is healed that it has hurt."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for strike in strikes:
                await asyncio.sleep(max(0.0, began + strike.at_s - time.monotonic()))
                tasks.create_task(self._strike(strike))

    async def _strike(self, strike: Strike) -> None:
        async with self._locks[strike.target]:
            self._story.tell(str(strike))
            if strike.target == "database":
                await self._strike_database(strike)
            else:
                await self._strike_one(strike)

    async def _strike_one(self, strike: Strike) -> None:
        proxy, lasts = self._victims.proxies[strike.target], asyncio.sleep
        match strike.kind:
            case Kind.KILL | Kind.STOP | Kind.PAUSE | Kind.LIMIT:
                await self._strike_process(self._victims.nodes[strike.target], strike)
            case Kind.CUT:
                proxy.cut()
            case Kind.STALL | Kind.STALL_UP | Kind.STALL_DOWN | Kind.HANG_AND_CUT:
                proxy.stall(up=strike.kind is not Kind.STALL_DOWN, down=strike.kind is not Kind.STALL_UP)
                await lasts(strike.for_s)
                if strike.kind is Kind.HANG_AND_CUT:
                    proxy.cut()
                proxy.go_on()
            case Kind.REFUSE:
                proxy.refuses = True
                proxy.cut()
                await lasts(strike.for_s)
                proxy.go_on()
            case Kind.FULL:
                disk = self._victims.disks[strike.target]
                await asyncio.to_thread(disk.fill)
                await lasts(strike.for_s)
                await asyncio.to_thread(disk.free)
            case Kind.COMMIT_LOST | Kind.COMMIT_UNKNOWN | Kind.COMMIT_LATE:
                late_s = LATE_S if strike.kind is Kind.COMMIT_LATE else 0.0
                proxy.trap = Trap(passes_on=strike.kind is not Kind.COMMIT_LOST, after_s=late_s)
                await lasts(strike.for_s)
                proxy.go_on()
            case Kind.TERMINATE | Kind.CRASH | Kind.FAIL_OVER:
                raise AssertionError(strike)
            case _:
                assert_never(strike.kind)

    async def _strike_process(self, node: Node, strike: Strike) -> None:
        match strike.kind:
            case Kind.KILL:
                await node.kill()
                await asyncio.sleep(strike.for_s)
                await self._start(node)
            case Kind.STOP:
                await node.stop()
                await asyncio.sleep(strike.for_s)
                await self._start(node)
            case Kind.PAUSE:
                node.pause()
                await asyncio.sleep(strike.for_s)
                node.go_on()
            case _:
                node.limit_files(LIMIT_BYTES)
                await asyncio.sleep(strike.for_s)
                node.limit_files(None)

    async def _strike_database(self, strike: Strike) -> None:
        cluster = self._victims.cluster
        assert cluster is not None
        match strike.kind:
            case Kind.TERMINATE:
                await asyncio.to_thread(cluster.terminate_sessions)
            case Kind.CRASH:
                await asyncio.to_thread(cluster.stop)
                await asyncio.sleep(strike.for_s)
                await asyncio.to_thread(cluster.start)
            case _:
                await asyncio.to_thread(cluster.fail_over)
                for proxy in self._victims.proxies.values():
                    if proxy.target == cluster.lost:
                        proxy.target = cluster.socket
                        proxy.cut()

    async def _start(self, node: Node) -> None:
        """Start a process, again and again while something else is in its way."""
        end = time.monotonic() + COME_UP_S
        while True:
            try:
                await node.start()
            except RuntimeError as error:
                if time.monotonic() > end:
                    raise
                self._story.tell(f"{error}; it is started again")
                await node.kill()
                await asyncio.sleep(AGAIN_S)
            else:
                self._story.tell(f"{node.name} runs again")
                return
