"""Steps of a saga, and what can be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

from amends.definition.references import Reference
from amends.definition.rules import ErrorFields
from amends.definition.terms import root
from amends.policies import COMPENSATABLE, Compensation, Duration, Kind, NotNeeded, Retry

Result = TypeVar("Result")


class Options(TypedDict, total=False):
    """What can be said of a step besides its action, its request and its business errors."""

    id: str | None
    """Its id in the saga, by default the name of the action: a letter, then letters, digits or `_`; at most 64."""
    after: Sequence[Step[Any]] | None
    """The steps that must be done before it, by default the previous one. Empty: it may run at once."""
    kind: Kind
    """COMPENSATABLE by default."""
    when: bool | None
    """A condition, in which references may stand: where it does not hold, the step is skipped."""
    requires: Sequence[object]
    """References to what must be there, and not None: otherwise the step fails before its call."""
    delay: Duration | None
    """How long to wait before it, once the steps before it are done."""
    retry: Retry | None
    """The retries of the action."""
    timeout: Duration | None
    """How long one attempt may take."""
    deadline: Duration | None
    """How long all attempts together may take, waiting included."""
    compensation: Compensation | NotNeeded | None
    """How it is undone, by default by the compensation of the action as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options with their defaults."""

    id: str | None = None
    after: Sequence[Step[Any]] | None = None
    kind: Kind = COMPENSATABLE
    when: object = None
    requires: Sequence[object] = ()
    delay: Duration | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    deadline: Duration | None = None
    compensation: Compensation | NotNeeded | None = None


class Step(Generic[Result]):
    """A step of a saga. Steps are made by `Saga.step`."""

    def __init__(self, saga: object, step_id: str, output_type: object) -> None:
        self._saga = saga
        self._id = step_id
        self._output_type = output_type

    @property
    def id(self) -> str:
        """The id in the definition."""
        return self._id

    @property
    def output(self) -> Result:
        """What the action answers: to a type checker the value, in fact a reference to it.

        A step that was skipped has none: parts of it then lead nowhere, unless `present(step.output)` is asked first.
        """
        return cast("Result", Reference(self._root("output", self._output_type)))

    @property
    def error(self) -> ErrorFields:
        """The business error of a step that went on with another output: a reference, to what may be absent."""
        return cast("ErrorFields", Reference(self._root("error", ErrorFields)))

    def belongs_to(self, saga: object) -> bool:
        """Whether the step was made by this saga."""
        return self._saga is saga

    def _root(self, name: str, kind: object) -> Any:
        return root(self._saga, f"steps.{self._id}.{name}", kind, step=self._id)

    def __repr__(self) -> str:
        return f"<step {self._id}>"
