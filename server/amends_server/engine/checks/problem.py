"""What the check of a definition finds. Each finding names the field, a stable code and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from amends_server.engine.value import dataclass


class Severity(Enum):
    """How bad a finding is: a definition with an ERROR cannot be registered."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding: the path of the field, a stable code, and what is wrong and what to do about it."""

    severity: Severity
    field: str
    code: str
    message: str


class InvalidDefinition(Exception):
    """A definition that cannot be run, with everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems))
        self.problems = problems


def is_wrong(problems: Iterable[Problem]) -> bool:
    """Tell whether findings keep a definition from being registered."""
    return any(problem.severity is Severity.ERROR for problem in problems)


def error(field: str, code: str, message: str) -> Problem:
    """Make a finding that keeps the definition from being registered."""
    return Problem(Severity.ERROR, field, code, message)


def warning(field: str, code: str, message: str) -> Problem:
    """Make a finding that says that the definition is probably not what was meant."""
    return Problem(Severity.WARNING, field, code, message)
