"""What a check of every failure found, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self, TypeGuard, cast

from amends.testing._tables import matrix, table
from amends.testing.faults import Case
from amends.views import SagaStatus

_HEADER = ("step", "call", "what goes wrong", "the saga is", "its effects", "wanted")
_MISSING = object()
_NOTHING: Mapping[object, object] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run in which one thing went wrong, and how it ended.

    `helped`: it was STUCK, as it had to be, and ended so after an operator's retry. `way`: if it completed by other
    steps than without a fault, by which, in words; empty otherwise.
    """

    case: Case
    status: SagaStatus
    helped: bool = False
    way: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Run):
    """A run whose effects are neither all nor none of those that the saga should have, or that went astray.

    `effects` and `wanted` are in words, of what differs; `journal` is the saga's, a line an event.
    """

    effects: str
    wanted: str
    journal: str


class Report(str):
    """The tables, with what they are made of. False in a condition if there are findings.

    It is a text so that `assert report.ok, report` shows it whole: of anything else pytest shows a few words.
    """

    saga: str
    runs: tuple[Run, ...]
    """How every run ended, in the order of the cases."""
    findings: tuple[Finding, ...]
    """Those of the runs that ended wrong."""
    impossible: tuple[Case, ...]
    """Cases that could not come about: of a call that never has to be made, or with which no other is in flight."""
    never_called: tuple[str, ...]
    """Steps that are not called when nothing goes wrong: with them nothing went wrong, either."""

    def __new__(
        cls, saga: str, *, runs: Sequence[Run], impossible: Sequence[Case] = (), never_called: Sequence[str] = ()
    ) -> Self:
        findings = tuple(run for run in runs if isinstance(run, Finding))
        report = super().__new__(cls, _text(saga, runs, findings, impossible, never_called))
        report.saga = saga
        report.runs = tuple(runs)
        report.findings = findings
        report.impossible = tuple(impossible)
        report.never_called = tuple(never_called)
        return report

    @property
    def ok(self) -> bool:
        """True if every run ended with all effects or with none, and by the steps that it should take."""
        return not self.findings

    @property
    def other_ways(self) -> tuple[Run, ...]:
        """The runs that completed by other steps than without a fault."""
        return tuple(run for run in self.runs if run.way)

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


def _text(
    saga: str,
    runs: Sequence[Run],
    findings: Sequence[Finding],
    impossible: Sequence[Case],
    never_called: Sequence[str],
) -> str:
    if findings:
        head = [f"{saga}: {len(runs)} runs, and {len(findings)} of them end neither with all effects nor with none:"]
        head += ["", *table([_HEADER, *(_row(finding) for finding in findings)]), "", *_example(findings[0])]
    else:
        head = [f"{saga}: {len(runs)} runs, and each ends with all effects or with none."]
    ends = {run.case: _end(run) for run in runs} | dict.fromkeys(impossible, _IMPOSSIBLE)
    seen = {end for end in ends.values() if end in _MEANINGS}
    legend = [f"{end}: {meaning}" for end, meaning in _MEANINGS.items() if end in seen]
    missing = [f"Never called without a fault, so never disturbed: {', '.join(never_called)}."] if never_called else []
    return "\n".join([*head, "", *matrix(ends), *legend, *missing])


_IMPOSSIBLE = "-"
_MEANINGS = {
    "all": "COMPLETED, with all effects.",
    "none": "COMPENSATED, with no effect.",
    "all*": "COMPLETED, with all effects, after an operator has retried the saga, which was STUCK.",
    "none*": "COMPENSATED, with no effect, after an operator has retried the saga, which was STUCK.",
    "WRONG": "see above.",
    _IMPOSSIBLE: "this cannot happen there.",
}


def _end(run: Run) -> str:
    """How a run ended, in a word."""
    if isinstance(run, Finding):
        return "WRONG"
    if run.way:
        return run.way
    return f"{'all' if run.status is SagaStatus.COMPLETED else 'none'}{'*' if run.helped else ''}"


def _row(finding: Finding) -> tuple[str, ...]:
    case = finding.case
    call = "Compensate" if case.compensation else "Execute"
    status = f"{finding.status}, {finding.way}" if finding.way else finding.status.value
    return (case.step, call, case.circumstances, status, finding.effects, finding.wanted)


def _example(finding: Finding) -> list[str]:
    call = "the compensation of " if finding.case.compensation else ""
    return [f"The journal of the first, {finding.case.circumstances} of {call}{finding.case.step}:", finding.journal]
