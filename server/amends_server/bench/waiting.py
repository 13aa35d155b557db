"""How much memory an orchestrator needs for sagas that wait for CompleteStep.

The orchestrator is a process of its own; the participant and the client run here.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from amends import Call, Client, Participant, Saga
from amends.completions import Completion
from amends.participant.serve import serving
from amends_server.bench.processes import Node
from amends_server.bench.unfinished import orchestrator
from amends_server.bench.workloads import PAYLOAD_BYTES, Load

CONCURRENCY = 256
COMPLETED = 10
"""Sagas that are completed in each half, before and after the restart."""

QUIET_S, QUIET_CPU_S = 3.0, 0.3
"""An orchestrator that used less CPU in that time has nothing to do: its loops take a hundredth of it."""

POLL_S = 0.5
WAIT_S_MAX = 600.0
END_S_MAX = 30.0

_KEPT = 2 * COMPLETED

participant = Participant("bench")
saga: Saga[Load, dict[str, object]] = Saga("waiting", input=Load)


@dataclass(slots=True)
class Answers:
    """What the participant has answered. `completions` are those of the first sagas."""

    count: int = 0
    completions: list[Completion] = field(default_factory=list[Completion])


answers = Answers()


@participant.action
async def approve(request: Load, call: Call) -> Load:
    answers.count += 1
    if len(answers.completions) < _KEPT:
        answers.completions.append(call.completion)
    call.later()


@approve.compensation
async def withdraw(request: Load, done: Load | None) -> None:
    return None


saga.step(approve)


async def start_all(client: Client, count: int) -> None:
    """Start that many sagas, and wait for none of them."""
    value = Load("p" * (PAYLOAD_BYTES - len('{"text":""}')))
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            await client.start(saga, value)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def count_waiting(path: Path) -> int:
    """Count unfinished sagas without a due time whose journal has three events: started, dispatched and deferred."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        query = "select count(*) from saga where end_time is null and due_time is null and sequence = 3"
        (number,) = db.execute(query).fetchone()
        return int(number)


async def until_waiting(path: Path, count: int) -> None:
    """Wait until that many sagas are WAITING on disk."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            waiting = await asyncio.to_thread(count_waiting, path)
            if waiting >= count:
                break
            await asyncio.sleep(POLL_S)
    assert waiting == count, f"{waiting} sagas wait instead of {count}"


async def until_quiet(node: Node) -> float:
    """Wait until the orchestrator has nothing to do, and return the seconds until then."""
    begun = time.perf_counter()
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            before, since = node.cpu_s(), time.perf_counter()
            await asyncio.sleep(QUIET_S)
            if node.cpu_s() - before < QUIET_CPU_S:
                return since - begun


async def complete(client: Client, completions: Sequence[Completion]) -> None:
    """Finish steps, and see their sagas end."""
    assert len(completions) == COMPLETED, f"{len(completions)} completions are there"
    async with asyncio.timeout(END_S_MAX):
        for completion in completions:
            (step,) = (await client.get(completion.saga_id)).steps
            assert step.status == "WAITING", step.status
            await client.complete(completion, Load("approved"))
            await client.saga(saga, completion.saga_id).result()


async def measure_waiting(count: int, path: Path) -> dict[str, float]:
    """Have that many sagas wait, restart the orchestrator, and complete some before and after."""
    answers.count, answers.completions = 0, []
    async with serving(participant) as address:
        async with orchestrator(path, address) as node, Client(node.address) as client:
            empty_mb, begun = node.memory_mb(), time.perf_counter()
            await start_all(client, count)
            await until_waiting(path, count)
            took_s = time.perf_counter() - begun
            waiting_mb, peak_mb = node.memory_mb(), node.memory_peak_mb()
            await complete(client, answers.completions[:COMPLETED])
        asked = answers.count
        async with orchestrator(path, address) as node, Client(node.address) as client:
            recovery_s = await until_quiet(node)
            recovered_mb, recovered_peak_mb = node.memory_mb(), node.memory_peak_mb()
            await until_waiting(path, count - COMPLETED)
            await complete(client, answers.completions[COMPLETED:])
            await until_waiting(path, count - 2 * COMPLETED)
    return {
        "empty_mb": round(empty_mb),
        "waiting_mb": round(waiting_mb),
        "memory_peak_mb": round(peak_mb),
        "all_waiting_after_s": round(took_s),
        "restarted_mb": round(recovered_mb),
        "restarted_peak_mb": round(recovered_peak_mb),
        "recovered_within_s": round(recovery_s),
        "asked_again": answers.count - asked,
    }
