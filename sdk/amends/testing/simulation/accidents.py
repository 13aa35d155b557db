"""Accidents of a simulated world: what happens to its disk, its processes and its clock by itself, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from amends.testing.simulation.process import Process

if TYPE_CHECKING:
    from amends.testing.simulation.world import World

TIMEOUT_S_MAX = 2.0
"""Of an attempt in a simulated world: processes are frozen for longer."""


class Accidents:
    """Each kind happens as often as the dice of the world say."""

    def __init__(self, world: World) -> None:
        self._world = world

    def all(self) -> list[Coroutine[Any, Any, None]]:
        """Return what happens by itself while faults go on."""
        return [
            self._now_and_then("store down", 0.05, self._store_down),
            self._now_and_then("disk full", 0.05, self._disk_full),
            self._now_and_then("killed", 0.06, self._kill),
            self._now_and_then("stopped", 0.04, self._stop),
            self._now_and_then("frozen", 0.05, self._freeze),
            self._now_and_then("lease not renewed", 0.03, self._renew_late),
            self._now_and_then("clock", 0.06, self._jump),
        ]

    async def _now_and_then(self, kind: str, chance: float, happen: Callable[[], Coroutine[Any, Any, None]]) -> None:
        second = 0
        while True:
            second += 1
            await self._world.sleep(self._world.dice.number(kind, 0.5, 1.5))
            if self._world.dice.strikes(kind, f"in second {second}", chance):
                await happen()

    async def _store_down(self) -> None:
        self._world.story.see("store down")
        self._world.story.tell("disk", "is gone")
        self._world.disk.down = True
        await self._world.sleep(self._world.dice.number("store down for", 0.1, 4.0))
        self._world.disk.down = False
        self._world.story.tell("disk", "is back")

    async def _disk_full(self) -> None:
        self._world.story.see("disk full")
        self._world.story.tell("disk", "is full")
        self._world.disk.full = True
        await self._world.sleep(self._world.dice.number("disk full for", 0.1, 4.0))
        self._world.disk.full = False
        self._world.story.tell("disk", "has room")

    async def _kill(self) -> None:
        process = self._world.process
        if process is not None and process.ready:
            self._world.story.tell(process.name, "is killed")
            self._world.crash(process)

    async def _stop(self) -> None:
        """Stop a process; what has begun to stop comes to its end."""
        await asyncio.shield(self._world.background(self._world.drain(), "drain"))

    async def _freeze(self) -> None:
        process = self._world.process
        if process is None or not process.ready or process.frozen:
            return
        if self._world.dice.strikes("succeeded", process.name, 0.4):
            self._world.overtake(process)
            return
        self._world.story.tell(process.name, "is frozen")
        self._world.loop.freeze(process)
        frozen_s = self._world.dice.number("frozen for", 0.5, 6.0)
        await self._world.sleep(frozen_s)
        if not process.dead:
            self._world.loop.thaw(process)
            self._world.story.tell(process.name, "goes on")
            if frozen_s > TIMEOUT_S_MAX:
                self._world.story.see("frozen longer than a timeout")

    async def _renew_late(self) -> None:
        process = self._world.process
        if process is not None and process.ready and not process.frozen:
            await asyncio.shield(self._world.background(self._doubt(process), "lease"))

    async def _doubt(self, process: Process) -> None:
        """Let a lease run out that is then renewed before anybody else takes it."""
        self._world.story.see("lease renewed late")
        self._world.story.tell(process.name, "cannot renew its lease")
        process.lease.doubt()
        await self._world.sleep(self._world.dice.number("lease not renewed for", 0.1, 3.0))
        if not process.dead:
            self._world.story.tell(process.name, "has renewed its lease")
            self._world.loop.call_soon(process.lease.renew, context=process.context)

    async def _jump(self) -> None:
        seconds = self._world.dice.number("clock jumps", -8.0, 8.0)
        self._world.clock.jumped_us += round(seconds * 1e6)
        self._world.story.tell("clock", f"jumps by {seconds:.3f} s")
        self._world.story.see("clock jumped ahead" if seconds > 0 else "clock jumped back")
