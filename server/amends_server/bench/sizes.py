"""Orchestrators whose files hold many finished sagas, and how fast they run new ones."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from amends import Client
from amends.errors import Compensated
from amends_server.bench.filling import fill
from amends_server.bench.load import Measured
from amends_server.bench.processes import Node, output_of, running
from amends_server.bench.workloads import BY_NAME

CONCURRENCY = 256
ROUNDS = 5
"""Files are loaded by turns, so that what else the machine does meets all of them."""

TEMPLATES = 128
TENANTS = 16


@dataclass(frozen=True, slots=True)
class Sized:
    """An orchestrator whose file has that many finished sagas."""

    finished: int
    node: Node


@asynccontextmanager
async def orchestrators(sizes: Sequence[int], folder: Path) -> AsyncGenerator[list[Sized], None]:
    """Make the files, and run an orchestrator on each inside of the block."""
    with ExitStack() as stack:
        participant = stack.enter_context(running("amends_server.bench.nodes", "participant", "session"))
        sized: list[Sized] = []
        for size in sizes:
            command = ("amends_server.bench.nodes", "orchestrator", str(folder / f"{size}.db"), participant.address)
            if size:
                with running(*command) as node:
                    await _run_templates(node.address)
                await fill(folder / f"{size}.db", size)
            sized.append(Sized(size, stack.enter_context(running(*command))))
        yield sized


async def _run_templates(address: str) -> None:
    """Run sagas of two definitions and two ends, with labels: one that all have, one of two, one of many."""

    async def run(client: Client, number: int) -> None:
        workload = BY_NAME["three_steps" if number % TENANTS else "refused"]
        labels = {"env": "prod", "region": ("eu", "us")[number % 2], "tenant": f"t{number % TENANTS}"}
        saga = await client.start(workload.definition(), workload.input(), labels=labels)
        try:
            await saga.result()
        except Compensated:
            assert workload.name == "refused", "a saga was compensated"

    async with Client(address) as client:
        await asyncio.gather(*(run(client, number) for number in range(TEMPLATES)))


def measure_starts(sized: Sequence[Sized], seconds: float) -> Iterator[tuple[int, dict[str, float]]]:
    """Run sagas of three steps beside the finished ones; ratios are to the first file, by rounds."""
    rounds: list[list[Measured]] = []
    for _ in range(ROUNDS):
        command = ("amends_server.bench.nodes", "load", "session")
        how = ("three_steps", str(CONCURRENCY), str(seconds))
        rounds.append([json.loads(output_of(*command, each.node.address, *how)) for each in sized])
    for place, each in enumerate(sized):
        ratios = [measured[place]["sagas_per_s"] / measured[0]["sagas_per_s"] for measured in rounds]
        yield (
            each.finished,
            {
                "sagas_per_s": round(statistics.median(measured[place]["sagas_per_s"] for measured in rounds), 1),
                "p50_ms": round(statistics.median(measured[place]["p50_ms"] for measured in rounds), 2),
                "empty_ratio": round(statistics.median(ratios), 3),
                "memory_peak_mb": round(each.node.memory_peak_mb()),
            },
        )
