"""Tables of texts: rows in columns that are as wide as they have to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from amends.testing.faults import Case, Fault, Siblings


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its first row is its header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def matrix(ends: Mapping[Case, str]) -> Iterator[str]:
    """Yield the lines of how each case ended: tables of Execute and of Compensate, a row for what went wrong."""
    for compensation, siblings in product((False, True), Siblings):
        found = [case for case in ends if (case.compensation, case.siblings) == (compensation, siblings)]
        if found:
            title = f"{'Compensate' if compensation else 'Execute'}{f', while {siblings}' if siblings else ''}"
            yield from _matrix(title, {(case.disturbance, case.step): ends[case] for case in sorted(found, key=_place)})
            yield ""


def _matrix(title: str, ends: Mapping[tuple[str, str], str]) -> list[str]:
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*ends, strict=True))
    return table([(title, *columns), *((row, *(ends.get((row, column), "") for column in columns)) for row in rows)])


def _place(case: Case) -> int:
    return list(Fault).index(case.fault)
