"""Rows as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from amends_server.bench.rows import Row

_COLUMNS = (
    *("workload", "link", "concurrency", "sagas/s", "× floor", "p50 ms", "× floor", "p99 ms", "CPU ms", "× floor"),
    *("orchestrator", "participant", "client", "DB bytes", "peak MB"),
)


def table_of(rows: Sequence[Row]) -> Table:
    """One line a row; CPU is milliseconds a saga, of all three processes and of each."""
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
