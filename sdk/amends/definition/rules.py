"""Rules for business errors: what a saga does instead of turning back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, Never, TypeVar, cast

from amends.definition.references import Reference
from amends.definition.terms import root

Out_co = TypeVar("Out_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """What can be read of the error of a step. `data` is what the participant gave with it."""

    code: str
    message: str
    participant: str
    data: Any


ERROR: Final = cast("ErrorFields", Reference(root(ErrorFields, "error", ErrorFields)))
"""The business error that a rule is for: a reference that may stand in the rule only."""


@dataclass(frozen=True, slots=True)
class CompensateOnError:
    """Turn the saga back."""


@dataclass(frozen=True, slots=True)
class RetryOnError:
    """Try again, by the retries of the step."""


@dataclass(frozen=True, slots=True)
class ContinueOnError:
    """Count the step as done, with this output."""

    output: object


@dataclass(frozen=True, slots=True)
class ErrorRule(Generic[Out_co]):
    """What to do with certain business errors of a step that has the output `Out_co`. Rules are made by `on`."""

    codes: tuple[str, ...]
    when: object
    then: CompensateOnError | RetryOnError | ContinueOnError


@dataclass(frozen=True, slots=True)
class On:
    """Business errors of which it is still to be said what to do."""

    codes: tuple[str, ...]
    when: object

    def continue_with(self, output: T) -> ErrorRule[T]:
        """Count the step as done, with this output, in which references may stand. Nothing of it is compensated."""
        return ErrorRule(self.codes, self.when, ContinueOnError(output))

    def retry(self) -> ErrorRule[Never]:
        """Try again with the same key, by the retries of the step; a verdict that is stored is not asked for again."""
        return ErrorRule(self.codes, self.when, RetryOnError())

    def compensate(self) -> ErrorRule[Never]:
        """Turn the saga back, which is also what happens without a rule: for exceptions from rules that follow."""
        return ErrorRule(self.codes, self.when, CompensateOnError())


def on(*codes: str, when: bool | None = None) -> On:
    """Business errors of these codes, or of any code if none is given, for which `when` holds.

    References may stand in `when`, `ERROR` among them: `on("BUSY", when=ERROR.data["left"] > 0).retry()`.
    """
    return On(codes, when)
