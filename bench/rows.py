"""One row of the table: a workload at a concurrency over a link, and the floor at the same, right before it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.load import Measured
from bench.processes import Node, output_of, running
from bench.workloads import Workload

LINKS = ("session", "unary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures of one run. Ratios are ours to the floor's: of sagas per second, and of the median latency.

    `cpu_s_per_1000` is the CPU time of each process for 1,000 sagas.
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
    db_bytes_per_saga: int
    memory_peak_mb: dict[str, float]
    sagas: int

    def to_json(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(asdict(self))


class Bench:
    """Processes of amends and of the floor, one link each. The floor's figures are measured anew for every row."""

    def __init__(self, link: str, seconds: float, ours: Node, participant: Node, path: Path, floor: Node) -> None:
        self._link, self._seconds = link, seconds
        self._ours, self._participant, self._path, self._floor = ours, participant, path, floor

    def measure(self, workload: Workload, concurrency: int) -> Row:
        """Run the floor, then the workload."""
        how = (str(concurrency), str(self._seconds))
        floor: Measured = json.loads(output_of("bench.floor.nodes", "load", self._link, self._floor.address, *how))
        cpu_before = (self._ours.cpu_s(), self._participant.cpu_s())
        size_before = _database_bytes(self._path)
        ours: Measured = json.loads(
            output_of("bench.nodes", "load", self._link, self._ours.address, workload.name, *how)
        )
        thousands = ours["sagas"] / 1000
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
            cpu_s_per_1000={
                "orchestrator": round((self._ours.cpu_s() - cpu_before[0]) / thousands, 3),
                "participant": round((self._participant.cpu_s() - cpu_before[1]) / thousands, 3),
                "client": round(ours["cpu_s"] / thousands, 3),
            },
            db_bytes_per_saga=round((_database_bytes(self._path) - size_before) / ours["sagas"]),
            memory_peak_mb={
                "orchestrator": round(self._ours.memory_peak_mb()),
                "participant": round(self._participant.memory_peak_mb()),
            },
            sagas=ours["sagas"],
        )


@contextmanager
def bench(link: str, seconds: float, folder: Path) -> Generator[Bench, None, None]:
    """Start what is measured over a link."""
    path, floor_path = folder / f"amends-{link}.db", folder / f"floor-{link}.db"
    with ExitStack() as stack:
        participant = stack.enter_context(running("bench.nodes", "participant", link))
        ours = stack.enter_context(running("bench.nodes", "orchestrator", str(path), participant.address))
        floor_participant = stack.enter_context(running("bench.floor.nodes", "participant"))
        floor = stack.enter_context(
            running("bench.floor.nodes", "orchestrator", link, str(floor_path), floor_participant.address)
        )
        yield Bench(link, seconds, ours, participant, path, floor)


def measure(
    workloads: Sequence[Workload], concurrencies: Sequence[int], seconds: float, folder: Path
) -> Generator[Row, None, None]:
    """Measure all workloads over both links."""
    for link in LINKS:
        with bench(link, seconds, folder) as measuring:
            for workload in workloads:
                for concurrency in concurrencies:
                    yield measuring.measure(workload, concurrency)


def _database_bytes(path: Path) -> int:
    """The size of the database with what is still in its log only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (pages,) = db.execute("pragma page_count").fetchone()
        (page_bytes,) = db.execute("pragma page_size").fetchone()
    return int(pages) * int(page_bytes)
