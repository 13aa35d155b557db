"""`python -m bench`: measures amends beside the floor on this machine, and prints a table.

All processes run on this machine and share its cores: the orchestrator, one participant whose actions answer at once,
and one client. Compare ratios to the floor, which ran right before, and not figures of different days or machines.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rows import Row, measure
from bench.workloads import BY_NAME, WORKLOADS

CONCURRENCIES = (1, 32, 256, 1_024)
QUICK_CONCURRENCIES = (1, 32, 256)
SECONDS = 4.0
QUICK_SECONDS = 2.5
WIDTH = 175  # the table needs it, whatever the terminal or the file has

_COLUMNS = (
    *("workload", "link", "concurrency", "sagas/s", "× floor", "p50 ms", "× floor", "p99 ms", "CPU ms", "× floor"),
    *("orchestrator", "participant", "client", "DB bytes", "peak MB"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a row to FILE")
    parser.add_argument("--quick", action="store_true", help="the first workload only, in less than a minute")
    parser.add_argument("--workload", choices=sorted(BY_NAME), help="this workload only")
    parser.add_argument("--seconds", type=float, help="how long each row is measured")
    options = parser.parse_args()
    workloads = [BY_NAME[options.workload]] if options.workload else WORKLOADS[: 1 if options.quick else None]
    concurrencies = QUICK_CONCURRENCIES if options.quick else CONCURRENCIES
    rows: list[Row] = []
    console = Console(width=WIDTH)
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
        for row in measure(workloads, concurrencies, seconds, Path(folder)):
            rows.append(row)
            console.print(f"{row.workload}, {row.link}, {row.concurrency}: {row.sagas_per_s:,.0f} sagas/s", style="dim")
            if options.json:
                options.json.write_text("".join(f"{row.to_json()}\n" for row in rows), encoding="utf-8")
    console.print(table(rows))


def table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    shown = Table(*_COLUMNS, title="Sagas a second and latencies, with ratios to the floor; CPU, database")
    for row in rows:
        cpu = row.cpu_s_per_1000
        shown.add_row(
            *(row.workload, row.link, f"{row.concurrency:,}", f"{row.sagas_per_s:,.0f}", f"{row.floor_ratio:.2f}"),
            *(f"{row.p50_ms:.2f}", f"{row.p50_ratio:.2f}", f"{row.p99_ms:.2f}"),
            *(f"{sum(cpu.values()):.2f}", f"{sum(cpu.values()) / sum(row.floor_cpu_s_per_1000.values()):.1f}"),
            *(f"{cpu['orchestrator']:.2f}", f"{cpu['participant']:.2f}", f"{cpu['client']:.2f}"),
            *(f"{row.db_bytes_per_saga:,}", f"{row.memory_peak_mb['orchestrator']:.0f}"),
        )
    return shown


if __name__ == "__main__":
    main()
