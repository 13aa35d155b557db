"""One run of the chaos: a world, its nemesis, and in the end the judge."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from amends import Client, SagaStatus
from tests.chaos.diary import Diary, Known
from tests.chaos.judge import End, judge, read_books
from tests.chaos.nemesis import Nemesis, Story
from tests.chaos.plan import plan
from tests.chaos.takeover import take_over
from tests.chaos.world import LEASE_S, World, world

REST_S = 60.0
"""How long all may take to come to rest once nothing is hurt any more."""

POLL_S = 0.2
UNFINISHED = (SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    summary: str
    violations: list[str]


async def run_seed(seed: int, seconds: float, store: str, folder: Path, story: Story, *, mounts: bool) -> Outcome:
    """Run a seed in an empty folder, which holds the logs afterwards."""
    async with world(folder, seed, store, story, mounts=mounts) as it:
        story.tell(f"seed {seed}: {len(it.nodes)} processes run")
        strikes = plan(seed, seconds, it.targets, long_s=it.long_s)
        await Nemesis(it.victims, story).run(strikes)
        violations = [f"{name} ended by itself" for name in await it.heal()]
        story.tell("all is healed")
        if it.victims.cluster is not None:
            violations += await take_over(seed, it.servers, it.victims, LEASE_S, story)
        began = time.monotonic()
        violations += await _rest(it)
        story.tell(f"at rest after {time.monotonic() - began:.2f} s")
        ends = await _ends(it)
        for node in it.nodes:
            await node.stop()
        diaries = [Diary(path) for path in it.diaries.values()]
        books = read_books(it.databases)  # the disks go with the world
    known = {id: each for diary in diaries for id, each in diary.known.items()}
    violations += [complaint for diary in diaries for complaint in diary.complaints]
    violations += judge(known, ends, books)
    return Outcome(_summary(known, ends, diaries), violations)


async def _rest(it: World) -> list[str]:
    """Have clients begin nothing new, and wait until all that they began has ended."""
    late: list[str] = []
    for client in it.clients:
        client.ask_to_end()
    try:
        async with asyncio.timeout(REST_S):
            for client in it.clients:
                await client.ended()
            await _all_ended(it)
    except TimeoutError:
        late.append(f"not at rest after {REST_S:.0f} s")
    late += [f"client {client.name} failed: see {client.log}" for client in it.clients if client.failed]
    return late


async def _all_ended(it: World) -> None:
    async with Client(it.addresses[0]) as client:
        while [saga.id async for saga in client.list(status=UNFINISHED)]:  # noqa: ASYNC110 - only a list can tell
            await asyncio.sleep(POLL_S)


async def _ends(it: World) -> dict[str, End]:
    async with Client(it.addresses[0]) as client:
        return {view.id: End(view.status, view.sequence) async for view in client.list()}


def _summary(known: dict[str, Known], ends: dict[str, End], diaries: list[Diary]) -> str:
    statuses = Counter(str(end.status) for end in ends.values())
    refusals = sum((Counter(diary.refusals) for diary in diaries), Counter[str]())
    return (
        f"{len(known)} transfers wanted, {sum(each.acknowledged for each in known.values())} acknowledged, "
        f"{sum(each.watched for each in known.values())} watched; {dict(statuses)}; refusals {dict(refusals)}"
    )
