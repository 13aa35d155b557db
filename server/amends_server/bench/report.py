"""Puts figures into a page: `python -m amends_server.bench.report PAGE FILE…`, with what `--json` wrote.

Between its two comments the page gets tables of all rows, and beside it a chart is written with the suffix `.svg`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amends_server.bench.chart import Bars, draw_chart

BEGIN, END = "<!-- figures, written by amends_server.bench.report -->", "<!-- end of figures -->"

LOAD_QUIET = 0.5
"""Load average before a run on a machine without other work."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a field of the row that has these values is to be, at least or at the most."""

    what: str
    where: Mapping[str, str | int]
    field: str
    bound: float
    at_least: bool

    def to_row(self, rows: Iterable[Row]) -> Sequence[str]:
        """The aim, what was seen, and whether that reaches it."""
        aim = f"at {'least' if self.at_least else 'most'} {self.bound:,g}"
        for row in rows:
            if row.items() >= self.where.items():
                seen: float = row[self.field]
                reached = seen >= self.bound if self.at_least else seen <= self.bound
                return self.what, aim, f"{seen:,g}", "yes" if reached else "**no**"
        return self.what, aim, "not measured", ""


_SESSION: dict[str, str | int] = {"workload": "three_steps", "link": "session"}
_UNARY: dict[str, str | int] = {"workload": "three_steps", "link": "unary"}
_LISTS: dict[str, str | int] = {"workload": "list_sagas", "sagas": 1_000_000}
_STARTS: dict[str, str | int] = {"workload": "starts", "sagas": 1_000_000}
_RECOVERY: dict[str, str | int] = {"workload": "recovery", "sagas": 100_000}

AIMS = (
    Aim(what="session, 256: ratio to the floor", where=_SESSION | {"concurrency": 256}, field="floor_ratio", bound=0.35,
        at_least=True),
    Aim(what="unary, 32: ratio to the floor", where=_UNARY | {"concurrency": 32}, field="floor_ratio", bound=0.6,
        at_least=True),
    Aim(what="session, 1: p50 to the floor's", where=_SESSION | {"concurrency": 1}, field="p50_ratio", bound=1.6,
        at_least=False),
    Aim(what="unary, 1: p50 to the floor's", where=_UNARY | {"concurrency": 1}, field="p50_ratio", bound=1.6,
        at_least=False),
    Aim(what="database bytes a saga", where=_SESSION | {"concurrency": 256}, field="db_bytes_per_saga", bound=2_500,
        at_least=False),
    Aim(what="starts with 10⁶ finished sagas: ratio to the empty file", where=_STARTS, field="empty_ratio",
        bound=0.85, at_least=True),
    Aim(what="slowest page of 50 of 10⁶, ms", where=_LISTS | {"page_size": 50}, field="page_worst_ms", bound=20,
        at_least=False),
    Aim(what="slowest page of 500 of 10⁶, ms", where=_LISTS | {"page_size": 500}, field="page_worst_ms", bound=20,
        at_least=False),
    Aim(what="recovery of 10⁵: first call after the process was started, s", where=_RECOVERY, field="first_call_s",
        bound=1, at_least=False),
    Aim(what="recovery of 10⁵: peak memory, MB", where=_RECOVERY, field="memory_peak_mb", bound=500, at_least=False),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m amends_server.bench.report", description=__doc__)
    parser.add_argument("page", type=Path, metavar="PAGE")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    rows = [json.loads(line) for file in options.files for line in file.read_text(encoding="utf-8").splitlines()]
    page: Path = options.page
    page.write_text(put_figures(page.read_text(encoding="utf-8"), rows, f"{page.stem}.svg"), encoding="utf-8")
    page.with_suffix(".svg").write_text(chart_of(rows), encoding="utf-8")


def put_figures(page: str, rows: Sequence[Row], chart: str) -> str:
    """Return the page with these figures in the place of what was between the comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"The page needs a line {BEGIN} and a line {END}: figures go between them.")
    return f"{before}{BEGIN}\n\n{_figures(rows, chart)}\n{END}{after}"


def chart_of(rows: Sequence[Row]) -> str:
    """Draw sagas of three steps a second."""
    panels: dict[str, list[Bars]] = {}
    for row in rows:
        if row["workload"] == "three_steps":
            bars = Bars(row["concurrency"], row["floor_sagas_per_s"], row["sagas_per_s"])
            panels.setdefault(row["link"], []).append(bars)
    return draw_chart("Sagas of three steps, beside the least that they cost", panels)


def _figures(rows: Sequence[Row], chart: str) -> str:
    loads = [row for row in rows if "concurrency" in row]
    others = [row for row in rows if "concurrency" not in row]
    shared = [row for row in others if _is_shared(row)]
    growth = [row for row in others if not _is_shared(row)]
    parts = [
        *dict.fromkeys(_taken(row) for row in rows),
        _table(("what", "aim", "seen", "reached"), (aim.to_row(rows) for aim in AIMS)),
        f"![Sagas a second of amends and of the floor, by concurrency]({chart})",
        "CPU is milliseconds a saga of orchestrator + participant + client; memory is the orchestrator's.",
        _table(_LOAD_COLUMNS, (_load_cells(row) for row in loads)),
        *_tables(growth),
        f"Orchestrators that share a PostgreSQL database{':' if shared else ' were not measured.'}",
        *_tables(shared),
    ]
    return "".join(f"{part}\n\n" for part in parts)


def _taken(row: Row) -> str:
    taken = row["taken"]
    busy = "" if taken["load"] <= LOAD_QUIET else " **The machine was busy**: rates and latencies are noise."
    what = "Sagas" if "concurrency" in row else "Shared database" if _is_shared(row) else "Growth"
    return (
        f"{what}: {taken['date']}, commit {taken['commit']}; {taken['machine']}; load average before "
        f"{taken['load']}.{busy}"
    )


_LOAD_COLUMNS = (
    *("workload", "link", "concurrency", "sagas/s", "floor", "ratio", "p50 ms", "ratio", "p99 ms", "CPU"),
    *("CPU of the floor", "DB bytes a saga", "peak MB"),
)


def _load_cells(row: Row) -> Iterator[str]:
    yield from (row["workload"], row["link"], f"{row['concurrency']:,}", f"{row['sagas_per_s']:,.0f}")
    yield from (f"{row['floor_sagas_per_s']:,.0f}", f"{row['floor_ratio']:.2f}", f"{row['p50_ms']:,.1f}")
    yield from (f"{row['p50_ratio']:.2f}", f"{row['p99_ms']:,.1f}")
    for cpu in (row["cpu_s_per_1000"], row["floor_cpu_s_per_1000"]):
        yield " + ".join(f"{each:.2f}" for each in cpu.values())
    yield from (f"{row['db_bytes_per_saga']:,}", f"{row['memory_peak_mb']['orchestrator']}")


def _kind(row: Row) -> str:
    kind: str = row["workload"]
    return kind


def _is_shared(row: Row) -> bool:
    return _kind(row).startswith("shared")


def _tables(rows: Sequence[Row]) -> list[str]:
    """A table for each kind of row."""
    return [_growth_table([row for row in rows if _kind(row) == kind]) for kind in dict.fromkeys(map(_kind, rows))]


def _growth_table(rows: Sequence[Row]) -> str:
    names = [name for name in rows[0] if name not in ("workload", "taken")]
    columns = (rows[0]["workload"], *(name.replace("_", " ") for name in names))
    return _table(columns, (("", *(f"{row[name]:,g}" for name in names)) for row in rows))


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
