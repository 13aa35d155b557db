"""One saga of very many steps, one after another."""

from __future__ import annotations

import time
from pathlib import Path

from amends import Client, Saga
from amends_server.bench.processes import running
from amends_server.bench.rows import database_bytes
from amends_server.bench.workloads import BY_NAME, Load, reserve

STEPS = 2_000
"""As many as a definition may have."""


def _define(steps: int) -> Saga[Load, dict[str, object]]:
    saga: Saga[Load, dict[str, object]] = Saga("long", input=Load)
    for number in range(steps):
        saga.step(reserve, id=f"step_{number}")
    return saga


async def measure_long_saga(steps: int, path: Path) -> dict[str, float]:
    """Run it once; its definition is registered before."""
    saga, value = _define(steps), BY_NAME["three_steps"].input()
    with (
        running("amends_server.bench.nodes", "participant", "session") as participant,
        running("amends_server.bench.nodes", "orchestrator", str(path), participant.address) as node,
    ):
        async with Client(node.address) as client:
            await client.register(saga)
            empty_mb, empty_bytes, begun = node.memory_mb(), database_bytes(path), time.perf_counter()
            node.forget_peak()
            await (await client.start(saga, value)).result()
            took_s = time.perf_counter() - begun
        return {
            "steps": steps,
            "took_s": round(took_s, 2),
            "ms_per_step": round(took_s / steps * 1e3, 2),
            "db_bytes_per_step": round((database_bytes(path) - empty_bytes) / steps),
            "memory_before_mb": round(empty_mb),
            "memory_peak_mb": round(node.memory_peak_mb()),
        }
