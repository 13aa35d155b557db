"""What becomes of many unfinished sagas: after a crash, when their timers ring together, and while they wait."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from amends import Call, Client, Participant
from amends.participant.serve import serving
from amends_server.bench.filling import fill
from amends_server.bench.processes import Node
from amends_server.bench.workloads import BY_NAME, Load, undo

TEMPLATES = 64
"""Sagas that are really run up to where the others are to be."""

POLL_S = 0.05
WAIT_S_MAX = 1_800.0

TIMER_S_MIN, TIMERS_RECOVERED_PER_S = 60.0, 700
"""Timers are set so far off that a slow machine has recovered their sagas before."""

_OPEN = "select count(*) from saga where end_time is null"


@dataclass(slots=True)
class Calls:
    """When the first steps were called, by the wall clock."""

    times: list[float] = field(default_factory=list[float])
    some: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self) -> None:
        self.times.append(time.time())
        self.some.set()


def make_participant(first: Callable[[Call], Awaitable[None]]) -> Participant:
    """A participant for sagas of three steps; what `first` does is done before the first step's answer."""
    made = Participant("bench")

    @made.action
    async def reserve(request: Load, call: Call) -> Load:
        await first(call)
        return request

    @made.action
    async def charge(request: Load) -> Load:
        return request

    @made.action
    async def ship(request: Load) -> Load:
        return request

    for each in (reserve, charge, ship):
        each.compensation(undo)
    return made


@asynccontextmanager
async def orchestrator(path: Path, address: str) -> AsyncGenerator[Node, None]:
    """Run an orchestrator inside of the block; participants that are served here answer while it comes and goes."""
    node = await asyncio.to_thread(Node, "amends_server.bench.nodes", "orchestrator", str(path), address)
    try:
        yield node
    finally:
        await asyncio.to_thread(node.stop)


async def measure_recovery(count: int, path: Path) -> dict[str, float]:
    """Kill an orchestrator that has that many sagas with a call out, and start another one."""
    await _leave_called(path)
    await fill(path, count - TEMPLATES)
    calls = Calls()
    async with serving(make_participant(_noting(calls))) as address:
        async with orchestrator(path, address) as node:
            await _within(calls.some.wait())
            node.kill()
        left = _count(path, _OPEN)
        calls.times.clear()
        begun = time.time()
        async with orchestrator(path, address) as node:
            listening = time.time()
            last = await _until_none(path)
            peak_mb = node.memory_peak_mb()
    return {
        "unfinished": left,
        "first_call_s": round(min(calls.times) - begun, 2),
        "first_call_after_listening_s": round(min(calls.times) - listening, 2),
        "last_saga_s": round(last - begun, 1),
        "memory_peak_mb": round(peak_mb),
    }


async def _leave_called(path: Path) -> None:
    """Leave sagas behind whose first step was called and not answered, by a crash."""
    calls = Calls()

    async def first(call: Call) -> None:
        calls.note()
        await asyncio.Event().wait()

    async with serving(make_participant(first)) as address, orchestrator(path, address) as node:
        await _start_templates(node.address)
        await _within(_until(lambda: len(calls.times) >= TEMPLATES))
        node.kill()


async def measure_timers(count: int, path: Path) -> dict[str, float]:
    """Have that many sagas wait for the same second. Lateness is from a timer's due time to the call that follows."""
    delay_s = TIMER_S_MIN + count / TIMERS_RECOVERED_PER_S
    await _leave_waiting(path, delay_s)
    await fill(path, count - TEMPLATES)
    due = _count(path, "select min(due_time) from saga") / 1e6
    calls = Calls()
    async with serving(make_participant(_noting(calls))) as address, orchestrator(path, address) as node:
        await asyncio.sleep(due - time.time() - 1)
        waiting_mb = node.memory_mb()
        last = await _until_none(path)
        peak_mb = node.memory_peak_mb()
    late = sorted(at - due for at in calls.times if at >= due)
    return {
        "waiting_mb": round(waiting_mb),
        "early_calls": len(calls.times) - len(late),
        "first_call_late_s": round(late[0], 2),
        "median_call_late_s": round(statistics.median(late), 2),
        "last_saga_s": round(last - due, 1),
        "memory_peak_mb": round(peak_mb),
    }


async def _leave_waiting(path: Path, delay_s: float) -> None:
    """Leave sagas behind whose participant wants to be asked again after that time."""

    async def first(call: Call) -> None:
        call.later(poll=delay_s)

    async with serving(make_participant(first)) as address, orchestrator(path, address) as node:
        await _start_templates(node.address)
        waiting = "select count(*) from saga where end_time is null and sequence = 3"
        await _within(_until(lambda: _count(path, waiting) == TEMPLATES))


async def _start_templates(address: str) -> None:
    workload = BY_NAME["three_steps"]
    async with Client(address) as client:
        await asyncio.gather(*(client.start(workload.definition(), workload.input()) for _ in range(TEMPLATES)))


def _noting(calls: Calls) -> Callable[[Call], Awaitable[None]]:
    async def first(call: Call) -> None:
        calls.note()

    return first


async def _until_none(path: Path) -> float:
    """Wait until all sagas have ended, and return when that was seen."""
    await _within(_until(lambda: _count(path, f"select exists ({_OPEN.replace('count(*)', '1')})") == 0))
    return time.time()


async def _until(holds: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(holds):  # noqa: ASYNC110  # what holds is in the file of another process
        await asyncio.sleep(POLL_S)


async def _within(wait: Awaitable[object]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        await wait


def _count(path: Path, query: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (number,) = db.execute(query).fetchone()
    return int(number)
