"""Figures on the page: all that were measured, beside what they are meant to be."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from amends_server.bench.report import AIMS, BEGIN, END, chart_of, put_figures
from tests.sources import ROOT

TAKEN = {"date": "2026-11-20", "commit": "1234abcd", "machine": "2 cores", "load": 0.1}
PAGE = f"before\n{BEGIN}\nold\n{END}\nafter\n"


def load(link: str, concurrency: int, ratio: float, **other: Any) -> dict[str, Any]:
    cpu = {"orchestrator": 0.3, "participant": 0.2, "client": 0.1}
    row = {
        "workload": "three_steps", "link": link, "concurrency": concurrency, "sagas_per_s": 1000 * ratio,
        "floor_sagas_per_s": 1000.0, "floor_ratio": ratio, "p50_ms": 3.0, "p50_ratio": 1.5, "p99_ms": 9.0,
        "cpu_s_per_1000": cpu, "floor_cpu_s_per_1000": cpu, "db_bytes_per_saga": 1_800,
        "memory_peak_mb": {"orchestrator": 80}, "taken": TAKEN,
    }  # fmt: skip
    return row | other


ROWS = [
    load("session", 256, 0.5),
    load("unary", 32, 0.59),
    {"workload": "shared_rate", "sagas": 900, "orchestrators": 1, "sagas_per_s": 300, "taken": TAKEN},
    {"workload": "shared_rate", "sagas": 1_500, "orchestrators": 2, "sagas_per_s": 500, "taken": TAKEN},
    {"workload": "recovery", "sagas": 100_000, "first_call_s": 0.6, "memory_peak_mb": 141, "taken": TAKEN},
]


def test_the_page_gets_figures_between_its_comments_only() -> None:
    page = put_figures(PAGE, ROWS, "chart.svg")
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert "commit 1234abcd; 2 cores" in page
    assert "busy" not in page
    assert "(chart.svg)" in page
    assert put_figures(page, ROWS, "chart.svg") == page


def test_aims_are_held_against_what_was_seen() -> None:
    page = put_figures(PAGE, ROWS, "chart.svg")
    assert "| session, 256: ratio to the floor | at least 0.35 | 0.5 | yes |" in page
    assert "| unary, 32: ratio to the floor | at least 0.6 | 0.59 | **no** |" in page
    assert "| recovery of 10⁵: peak memory, MB | at most 500 | 141 | yes |" in page
    assert page.count("| not measured |") == len(AIMS) - 5


def test_orchestrators_that_share_a_database_have_tables_of_their_own() -> None:
    page = put_figures(PAGE, ROWS, "chart.svg")
    assert "Shared database: 2026-11-20, commit 1234abcd" in page
    assert (
        "Orchestrators that share a PostgreSQL database:\n\n"
        "| shared_rate | sagas | orchestrators | sagas per s |\n| --- | --- | --- | --- |\n"
        "|  | 900 | 1 | 300 |\n|  | 1,500 | 2 | 500 |\n"
    ) in page
    assert "PostgreSQL database were not measured." in put_figures(PAGE, ROWS[:2], "chart.svg")


def test_a_busy_machine_is_said_to_be_busy() -> None:
    page = put_figures(PAGE, [load("session", 1, 0.5, taken=TAKEN | {"load": 4.0})], "chart.svg")
    assert "The machine was busy" in page


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    with pytest.raises(SystemExit, match="needs a line"):
        put_figures("nothing", ROWS, "chart.svg")


def test_the_chart_has_two_bars_for_each_row() -> None:
    picture = ElementTree.fromstring(chart_of(ROWS))  # noqa: S314  # drawn right here
    bars = [each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") in ("floor", "ours")]
    heights = [float(each.get("height", "")) for each in bars]
    assert heights[2:] == [190, 95, 190, 112.1]  # after the two of the legend
    assert "50%" in "".join(picture.itertext())


def test_the_page_of_the_documents_has_its_place_and_its_chart() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert "(performance.svg)" in page
    ElementTree.parse(ROOT / "docs" / "performance.svg")  # noqa: S314  # our own
