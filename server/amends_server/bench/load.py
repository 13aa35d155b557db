"""Keeps a number of sagas going for some seconds, and measures them from start to end."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

import grpc

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
    """Run `one` again and again, `concurrency` at a time.

    It goes on after that time until as many have ended as run at a time: slow ones are measured for longer.
    """
    begun, cpu_begun = time.perf_counter() + WARM_UP_S, time.process_time()
    count = 0
    times: list[float] = []
    stopped: float | None = None

    async def worker() -> None:
        nonlocal count, stopped
        while True:
            start = time.perf_counter()
            await one()
            end = time.perf_counter()
            count += 1
            if stopped is not None:
                return
            if end >= begun:
                times.append(end - start)
            if end >= begun + seconds and len(times) >= concurrency:
                stopped = end
                return

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    assert stopped is not None, "workers end when it is over"
    times.sort()
    return Measured(
        sagas=count,  # what is on its way at the end is run to its end, and counts in nothing else
        sagas_per_s=len(times) / (stopped - begun),
        p50_ms=_quantile(times, 0.5) * 1e3,
        p99_ms=_quantile(times, 0.99) * 1e3,
        cpu_s=time.process_time() - cpu_begun,
        memory_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


async def answered(method: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """Make a call, anew if gRPC cancels it: with a thousand at a time it does that by itself now and then."""
    while True:
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise


def _quantile(times: list[float], q: float) -> float:
    return times[min(int(len(times) * q), len(times) - 1)]
