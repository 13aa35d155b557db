"""Keeps a number of sagas going for some seconds, and measures them from start to end."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import TypedDict

WARM_UP_S = 0.5
"""Before anything counts: connections are made, and code is run for the first time."""


class Measured(TypedDict):
    """Figures of one run. Times are without the warming up, `sagas`, `cpu_s` and memory of the whole run."""

    sagas: int
    sagas_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    memory_peak_mb: float


async def drive(one: Callable[[], Awaitable[None]], concurrency: int, seconds: float) -> Measured:
    """Run `one` again and again, `concurrency` at a time."""
    begun, cpu_begun = time.perf_counter() + WARM_UP_S, time.process_time()
    ends: list[tuple[float, float]] = []

    async def worker() -> None:
        while (start := time.perf_counter()) < begun + seconds:
            await one()
            end = time.perf_counter()
            ends.append((end, end - start))

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    # What is still on its way at the end is run to its end, and counts neither as a saga nor in the time.
    times = sorted(took for end, took in ends if begun <= end <= begun + seconds)
    return Measured(
        sagas=len(ends),
        sagas_per_s=len(times) / seconds,
        p50_ms=_quantile(times, 0.5) * 1e3,
        p99_ms=_quantile(times, 0.99) * 1e3,
        cpu_s=time.process_time() - cpu_begun,
        memory_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _quantile(times: list[float], q: float) -> float:
    return times[min(int(len(times) * q), len(times) - 1)] if times else float("nan")
