"""One row of the table: a workload at a concurrency over a link, and the floor at the same, right before it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from amends_server.bench.load import Measured
from amends_server.bench.processes import Node, output_of, running
from amends_server.bench.taken import Taken, take
from amends_server.bench.workloads import Workload

LINKS = ("session", "unary")
CONCURRENCIES = (1, 32, 256, 1_024)
QUICK_CONCURRENCIES = (1, 32, 256)
SECONDS = 4.0
QUICK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The rows that are wanted: each workload over each link at each concurrency, for so many seconds."""

    workloads: Sequence[Workload]
    links: Sequence[str]
    concurrencies: Sequence[int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures of one run. Ratios are ours to the floor's: of sagas per second, and of the median latency.

    `cpu_s_per_1000` is the CPU time of each process for 1,000 sagas: it says most when the machine has other work too.
    """

    workload: str
    link: str
    concurrency: int
    sagas_per_s: float
    p50_ms: float
    p99_ms: float
    floor_ratio: float
    floor_sagas_per_s: float
    p50_ratio: float
    floor_p50_ms: float
    cpu_s_per_1000: dict[str, float]
    floor_cpu_s_per_1000: dict[str, float]
    db_bytes_per_saga: int
    memory_peak_mb: dict[str, float]
    sagas: int
    taken: Taken

    def to_json(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Pair:
    """An orchestrator and its participant."""

    orchestrator: Node
    participant: Node

    def load(self, *command: str) -> tuple[Measured, dict[str, float]]:
        """Run a client; return its figures, and the CPU seconds of all three processes for 1,000 sagas.

        From then on the peaks of memory are those of this run.
        """
        self.orchestrator.forget_peak()
        self.participant.forget_peak()
        before = (self.orchestrator.cpu_s(), self.participant.cpu_s())
        measured: Measured = json.loads(output_of(*command))
        thousands = measured["sagas"] / 1000
        return measured, {
            "orchestrator": round((self.orchestrator.cpu_s() - before[0]) / thousands, 3),
            "participant": round((self.participant.cpu_s() - before[1]) / thousands, 3),
            "client": round(measured["cpu_s"] / thousands, 3),
        }


class Bench:
    """Processes of amends and of the floor, one link each. The floor's figures are measured anew for every row."""

    def __init__(self, link: str, seconds: float, ours: Pair, path: Path, floor: Pair, taken: Taken) -> None:
        self._link, self._seconds, self._taken = link, seconds, taken
        self._ours, self._path, self._floor = ours, path, floor

    def measure(self, workload: Workload, concurrency: int) -> Row:
        """Run the floor, then the workload."""
        how = (str(concurrency), str(self._seconds))
        address = self._floor.orchestrator.address
        floor, floor_cpu = self._floor.load("amends_server.bench.floor.nodes", "load", self._link, address, *how)
        size_before = database_bytes(self._path)
        address = self._ours.orchestrator.address
        ours, cpu = self._ours.load("amends_server.bench.nodes", "load", self._link, address, workload.name, *how)
        return Row(
            workload=workload.name,
            link=self._link,
            concurrency=concurrency,
            sagas_per_s=round(ours["sagas_per_s"], 1),
            p50_ms=round(ours["p50_ms"], 2),
            p99_ms=round(ours["p99_ms"], 2),
            floor_ratio=round(ours["sagas_per_s"] / floor["sagas_per_s"], 3),
            floor_sagas_per_s=round(floor["sagas_per_s"], 1),
            p50_ratio=round(ours["p50_ms"] / floor["p50_ms"], 2),
            floor_p50_ms=round(floor["p50_ms"], 2),
            cpu_s_per_1000=cpu,
            floor_cpu_s_per_1000=floor_cpu,
            db_bytes_per_saga=round((database_bytes(self._path) - size_before) / ours["sagas"]),
            memory_peak_mb={
                "orchestrator": round(self._ours.orchestrator.memory_peak_mb()),
                "participant": round(self._ours.participant.memory_peak_mb()),
                "client": round(ours["memory_peak_mb"]),
            },
            sagas=ours["sagas"],
            taken=self._taken,
        )


@contextmanager
def bench(link: str, seconds: float, folder: Path, taken: Taken) -> Generator[Bench, None, None]:
    """Start what is measured over a link."""
    path, floor_path = folder / f"amends-{link}.db", folder / f"floor-{link}.db"
    with ExitStack() as stack:
        participant = stack.enter_context(running("amends_server.bench.nodes", "participant", link))
        ours = stack.enter_context(running("amends_server.bench.nodes", "orchestrator", str(path), participant.address))
        floor_participant = stack.enter_context(running("amends_server.bench.floor.nodes", "participant"))
        floor = stack.enter_context(
            running("amends_server.bench.floor.nodes", "orchestrator", link, str(floor_path), floor_participant.address)
        )
        yield Bench(link, seconds, Pair(ours, participant), path, Pair(floor, floor_participant), taken)


def measure(plan: Plan, folder: Path) -> Generator[Row, None, None]:
    """Measure it all, with files in that folder."""
    taken = take()
    for link in plan.links:
        with bench(link, plan.seconds, folder, taken) as measuring:
            for workload in plan.workloads:
                for concurrency in plan.concurrencies:
                    yield measuring.measure(workload, concurrency)


def database_bytes(path: Path) -> int:
    """The size of the database with what is still in its log only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (pages,) = db.execute("pragma page_count").fetchone()
        (page_bytes,) = db.execute("pragma page_size").fetchone()
    return int(pages) * int(page_bytes)
