"""What a check of every failure found, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self, TypeGuard, cast

from amends.testing.faults import Case
from amends.views import SagaStatus

_HEADER = ("step", "call", "what goes wrong", "the saga is", "its effects", "wanted")
_MISSING = object()
_NOTHING: Mapping[object, object] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A run whose effects are neither all nor none of those that the saga has when nothing goes wrong.

    `effects` and `wanted` are in words, of what differs; `journal` is the saga's, a line an event.
    """

    case: Case
    status: SagaStatus
    effects: str
    wanted: str
    journal: str


class Report(str):
    """The table, with what it is made of. False in a condition if there are findings.

    It is a text so that `assert report.ok, report` shows it whole: of anything else pytest shows a few words.
    """

    saga: str
    runs: int
    findings: tuple[Finding, ...]

    def __new__(cls, saga: str, runs: int, findings: Sequence[Finding]) -> Self:
        report = super().__new__(cls, _text(saga, runs, findings))
        report.saga = saga
        report.runs = runs
        report.findings = tuple(findings)
        return report

    @property
    def ok(self) -> bool:
        """True if every run ended with all effects or with none."""
        return not self.findings

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return str(self)


def change(before: object, after: object) -> object:
    """Return what has changed: of numbers the difference, of mappings the changes by key; None if nothing has."""
    before, after = _filled(before, after), _filled(after, before)
    if _is_mapping(before) and _is_mapping(after):
        keys = dict.fromkeys([*before, *after])
        changes = {key: change(before.get(key, _MISSING), after.get(key, _MISSING)) for key in keys}
        return {key: changed for key, changed in changes.items() if changed is not None} or None
    if _is_number(before) and _is_number(after):
        return cast("int", after) - cast("int", before) or None  # of whatever kind: they are of one
    return None if before == after else "gone" if after is _MISSING or after is None else after


def difference(got: object, wanted: object) -> tuple[str, str]:
    """Return in words what of two changes is not the same."""
    left, right = _NOTHING if got is None else got, _NOTHING if wanted is None else wanted
    if not (_is_mapping(left) and _is_mapping(right)):
        return _words(got), _words(wanted)
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    return _words({key: left.get(key, 0) for key in keys}), _words({key: right.get(key, 0) for key in keys})


def _filled(value: object, other: object) -> object:
    """Return what a key that is missing stands for beside the value that it has before or after."""
    if value is not _MISSING:
        return value
    return _NOTHING if _is_mapping(other) else 0 if _is_number(other) else value


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_number(value: object) -> TypeGuard[int | float | Decimal]:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _words(changed: object) -> str:
    if changed is None:
        return "nothing"
    if not _is_mapping(changed):
        return str(changed)
    return ", ".join(f"{key}: {_nested(value)}" for key, value in changed.items()) or "nothing"


def _nested(value: object) -> str:
    return f"({_words(value)})" if _is_mapping(value) else _words(value)


def _text(saga: str, runs: int, findings: Sequence[Finding]) -> str:
    if not findings:
        return f"{saga}: {runs} runs, and each ends with all effects or with none."
    rows = [_HEADER, *(_row(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"{saga}: {runs} runs, and {len(findings)} of them end neither with all effects nor with none:"
    return "\n".join([head, "", lines[0], "-" * len(lines[0]), *lines[1:], "", *_example(findings[0])])


def _row(finding: Finding) -> tuple[str, ...]:
    case = finding.case
    call = "Compensate" if case.compensation else "Execute"
    return (case.step, call, case.fault.value, finding.status.value, finding.effects, finding.wanted)


def _example(finding: Finding) -> list[str]:
    call = "the compensation of " if finding.case.compensation else ""
    return [f"The journal of the first, {finding.case.fault} of {call}{finding.case.step}:", finding.journal]
