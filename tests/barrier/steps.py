"""Transactions that stop before every statement, and a search through all orders in which two can go on.

So each statement of one is on both sides of each of the other, as far as the database lets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from amends.barrier._statements import Statement, Value

STEP_S = 30.0  # for one statement, on a busy machine

Pause = Callable[[str], Awaitable[None]]


class Stepwise:
    """A database that calls `pause` before everything that it does, with what comes next."""

    def __init__(self, database: Any, pause: Pause) -> None:
        self._database = database
        self.pause = pause
        self.inside = False
        self.begun = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self.begun += 1
        await self.pause("before begin")
        async with self._database.transaction() as tx:
            self.inside = True
            try:
                yield tx
                await self.pause("before commit")
            finally:
                self.inside = False

    @asynccontextmanager
    async def savepoint(self, tx: Any) -> AsyncIterator[None]:
        await self.pause("before savepoint")
        async with self._database.savepoint(tx):
            await self.pause("before effect")
            yield
            await self.pause("before release")

    async def fetch(self, tx: Any, statement: Statement, **parameters: Value) -> Sequence[Sequence[object]]:
        verb = statement.sqlite.split()[0].lower()
        await self.pause(f"before {verb}")
        rows: Sequence[Sequence[object]] = await self._database.fetch(tx, statement, **parameters)
        return rows

    async def sleep(self, seconds: float) -> None:
        await self._database.sleep(0)


class Actor:
    """A call that stops at each pause until it is its turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at: str | None = None
        self.last = ""
        self.task: asyncio.Task[Any] | None = None
        self._turn = asyncio.Event()

    async def pause(self, label: str) -> None:
        self.at = self.last = label
        await self._turn.wait()
        self._turn.clear()

    def go(self) -> None:
        self.at = None
        self._turn.set()

    @property
    def done(self) -> bool:
        return self.task is not None and self.task.done()

    @property
    def settled(self) -> bool:
        """Whether it waits for its turn, or has ended."""
        return self.done or self.at is not None


Blocked = Callable[[Actor], Awaitable[bool]]


async def run(
    actors: Sequence[Actor], work: Sequence[Awaitable[Any]], blocked: Blocked, choices: list[int]
) -> list[int]:
    """Run the work of the actors, one statement at a time, by the choices; then always the first who can.

    Gives how many could have gone at each choice.
    """
    for actor, each in zip(actors, work, strict=True):
        actor.task = asyncio.ensure_future(each)
    widths: list[int] = []
    try:
        while not all(actor.done for actor in actors):
            await asyncio.wait_for(_quiet(actors, blocked), STEP_S)
            able = [actor for actor in actors if actor.at is not None]
            if not able:
                continue
            chosen = choices[len(widths)] if len(widths) < len(choices) else 0
            widths.append(len(able))
            able[chosen].go()
    finally:
        for actor in actors:
            if actor.task is not None and not actor.done:
                actor.task.cancel()
    return widths


async def _quiet(actors: Sequence[Actor], blocked: Blocked) -> None:
    """Wait until each actor has its turn to wait for, has ended, or waits for another one inside the database.

    Who waits is asked once all others have come to rest: the last thing that one of them did may have let it go.
    """
    while True:
        running = [actor for actor in actors if not actor.settled]
        waits = [await blocked(actor) for actor in running]
        if all(waits) and running == [actor for actor in actors if not actor.settled]:
            return
        await asyncio.sleep(0)


async def every_order(one: Callable[[list[int]], Awaitable[list[int]]]) -> int:
    """Run `one` with all choices that there are, each once; give how many."""
    choices: list[int] = []
    runs = 0
    while True:
        widths = await one(choices)
        runs += 1
        taken = choices + [0] * (len(widths) - len(choices))
        while taken and taken[-1] + 1 >= widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return runs
        taken[-1] += 1
        choices = taken
