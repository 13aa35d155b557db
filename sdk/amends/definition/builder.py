"""Writing a saga down: its steps, their order and what flows between them. The result is a definition, plain data."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import Enum
from types import NoneType
from typing import Any, Final, Generic, TypeVar, Unpack, cast, overload

from amends.action import Action
from amends.definition.blocks import Choice, Order
from amends.definition.dataflow import Scope
from amends.definition.references import Reference
from amends.definition.rules import ErrorRule
from amends.definition.steps import Options, Settings, Step
from amends.definition.terms import root
from amends.errors import DefinitionError
from amends.payloads import json_schema
from amends.policies import (
    COMPENSATABLE,
    NOT_NEEDED,
    Compensation,
    Duration,
    OnCompensationFailure,
    duration_message,
)
from amends.v1 import definition_pb2

In = TypeVar("In")
Out = TypeVar("Out")
Request = TypeVar("Request")
Result = TypeVar("Result")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}", re.ASCII)
_STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)


class _Absent(Enum):
    """Told apart from None, which is a request like any other."""

    ABSENT = "ABSENT"


_ABSENT: Final = _Absent.ABSENT


class Saga(Generic[In, Out]):
    """A saga as its author writes it: steps are added in the order in which they run.

    `input` and `output` are the types of its data. Without `input` anything can be taken from the input unchecked;
    without `output` the saga's result is the outputs of its steps by their ids. `deadline` is how long it may go
    forward.

    :raises DefinitionError: for a name that is not a letter, then letters, digits, `.`, `_` or `-`, at most 128.
    """

    @overload
    def __init__(
        self,
        name: str,
        *,
        input: type[In],
        output: type[Out],
        deadline: Duration | None = None,
        on_compensation_failure: OnCompensationFailure = OnCompensationFailure.HALT,
        description: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self: Saga[Request, dict[str, object]],
        name: str,
        *,
        input: type[Request],
        deadline: Duration | None = None,
        on_compensation_failure: OnCompensationFailure = OnCompensationFailure.HALT,
        description: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self: Saga[Any, dict[str, object]],
        name: str,
        *,
        deadline: Duration | None = None,
        on_compensation_failure: OnCompensationFailure = OnCompensationFailure.HALT,
        description: str = "",
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        input: object = Any,
        output: object = None,
        deadline: Duration | None = None,
        on_compensation_failure: OnCompensationFailure = OnCompensationFailure.HALT,
        description: str = "",
    ) -> None:
        self._name = _checked(name, _NAME, "saga")
        self._input_type = input
        self._input_schema = json_schema(input)
        self._output_type = cast("type[Out] | None", output)
        self._deadline = duration_message(deadline, "deadline")
        self._on_compensation_failure = on_compensation_failure
        self._description = description
        self._steps: dict[str, definition_pb2.StepDefinition] = {}
        self._order = Order()
        self._output_template: str | None = None
        self._content: bytes | None = None

    @property
    def name(self) -> str:
        """The name of the definition."""
        return self._name

    @property
    def input(self) -> In:
        """What the saga is started with: to a type checker the value, in fact a reference to it."""
        return cast("In", Reference(root(self, "input", self._input_type)))

    @property
    def output_type(self) -> type[Out] | None:
        """The declared type of the result; None if the result is the outputs of the steps by their ids."""
        return self._output_type

    @overload
    def step(
        self,
        action: Action[Request, Result],
        request: Request,
        *,
        on_error: Sequence[ErrorRule[Result]] = (),
        **options: Unpack[Options],
    ) -> Step[Result]: ...
    @overload
    def step(
        self: Saga[Request, Any],
        action: Action[Request, Result],
        *,
        on_error: Sequence[ErrorRule[Result]] = (),
        **options: Unpack[Options],
    ) -> Step[Result]: ...
    @overload
    def step(
        self,
        action: str,
        request: object = ...,
        *,
        on_error: Sequence[ErrorRule[Any]] = (),
        **options: Unpack[Options],
    ) -> Step[Any]: ...
    def step(
        self,
        action: Action[Any, Any] | str,
        request: object = _ABSENT,
        *,
        on_error: Sequence[ErrorRule[Any]] = (),
        **options: Unpack[Options],
    ) -> Step[Any]:
        """Add a step that calls an action with a request; without a request, with the saga's input.

        In the request, and in the arguments of a compensation, `saga.input`, the outputs of earlier steps, parts of
        these, and expressions over them may stand wherever a value of their type may. `on_error` says what to do with
        business errors, the first rule that fits; without one the saga turns back. An action of which there is no code
        here is given as `"participant/action"`; then nothing is known of its types, and it is taken to have a
        compensation. Write a TypedDict as a call, `Parcel(weight=…)`: mypy cannot tell that a dict in braces is one.

        :raises DefinitionError: if the step cannot work: a second one of that id, a request that uses the output of a
            step that does not run before, a compensatable step with nothing said of its compensation.
        """
        settings = Settings(**options)
        called = _named_action(action) if isinstance(action, str) else action
        step_id = _checked(settings.id or re.sub(r"[.-]", "_", called.name), _STEP_ID, "step")
        if step_id in self._steps:
            raise DefinitionError(f"There is a step {step_id!r} already: give this one another name by id=….")
        after = self._after(settings.after, step_id)
        self._steps[step_id] = self._step_message(step_id, called, request, on_error, settings, after)
        self._order.add(step_id)
        self._content = None
        return Step(self, step_id, called.output_type)

    @contextmanager
    def parallel(self) -> Generator[None, None, None]:
        """Steps that are added inside run at the same time; the next step after the block runs after all of them.

        :raises DefinitionError: directly inside of another such block: order by `after` there.
        """
        self._order.open_parallel()
        try:
            yield
        finally:
            self._order.close_parallel(self._afters())

    @contextmanager
    def when(self, condition: bool) -> Generator[None, None, None]:
        """Steps that are added inside run only if the condition holds, in which references may stand.

        Further branches follow by `otherwise`. The next step after the branches runs after the one that ran; it may use
        the outputs of steps inside, which are absent where their branch did not run: see `amends.expressions.present`.
        """
        choice = self._order.open_first(condition)
        with self._branch(choice):
            yield

    @contextmanager
    def otherwise(self, condition: bool | None = None) -> Generator[None, None, None]:
        """Steps that are added inside run only if no earlier branch does, and if the condition holds, if there is one.

        :raises DefinitionError: if it does not come directly after `when` or another `otherwise` with a condition.
        """
        choice = self._order.open_next(condition)
        with self._branch(choice):
            yield

    def returns(self, value: Out) -> None:
        """Say what the saga results in. References may stand in the value.

        :raises DefinitionError: if it was said before.
        """
        if self._output_template is not None:
            raise DefinitionError(f"The saga {self._name!r} has a result already.")
        self._output_template = Scope(self, "returns", frozenset(self._steps)).template(value)
        self._content = None

    def definition(self) -> definition_pb2.Definition:
        """The definition as it is registered. Equal sagas give equal messages.

        :raises DefinitionError: if there are no steps, or the declared output is never returned.
        """
        if not self._steps:
            raise DefinitionError(f"The saga {self._name!r} has no steps.")
        if self._output_type is not None and self._output_template is None:
            raise DefinitionError(f"The saga {self._name!r} declares an output: say what it is by returns(…).")
        return definition_pb2.Definition(
            name=self._name,
            steps=self._steps.values(),
            output_template=self._output_template or "",
            deadline=self._deadline,
            on_compensation_failure=definition_pb2.OnCompensationFailure.Value(
                f"ON_COMPENSATION_FAILURE_{self._on_compensation_failure}"
            ),
            description=self._description,
            input_schema=self._input_schema,
        )

    def content(self) -> bytes:
        """The definition as bytes, which are equal for equal sagas. They are kept until a step or a result is added.

        Raises what `definition` does.
        """
        if self._content is None:
            self._content = self.definition().SerializeToString(deterministic=True)
        return self._content

    def __repr__(self) -> str:
        return f"<saga {self._name}: {', '.join(self._steps) or 'no steps'}>"

    def _after(self, after: Sequence[Step[Any]] | None, step_id: str) -> tuple[str, ...]:
        if after is None:
            return self._order.after
        for step in after:
            if not step.belongs_to(self):
                raise DefinitionError(f"The step {step_id!r} cannot be after {step!r}, which belongs to another saga.")
        return tuple(dict.fromkeys(step.id for step in after))

    def _afters(self) -> dict[str, Sequence[str]]:
        return {step_id: step.after for step_id, step in self._steps.items()}

    @contextmanager
    def _branch(self, choice: Choice) -> Generator[None, None, None]:
        try:
            yield
        finally:
            self._order.close_branch(choice, self._afters())

    def _step_message(
        self,
        step_id: str,
        action: Action[Any, Any],
        request: object,
        on_error: Sequence[ErrorRule[Any]],
        settings: Settings,
        after: Sequence[str],
    ) -> definition_pb2.StepDefinition:
        scope = Scope(self, step_id, self._before(after))
        test = self._order.test(scope.condition(settings.when))
        if test is not None:
            scope.check(test.origins)
        return definition_pb2.StepDefinition(
            id=step_id,
            participant=action.participant,
            action=action.name,
            kind=definition_pb2.StepKind.Value(f"STEP_KIND_{settings.kind}"),
            compensation=_compensation(scope, action, settings),
            after=after,
            input_template="" if request is _ABSENT else scope.template(request),
            retry=None if settings.retry is None else settings.retry.message(),
            timeout=duration_message(settings.timeout, f"{step_id}: timeout"),
            deadline=duration_message(settings.deadline, f"{step_id}: deadline"),
            when="" if test is None else test.text,
            on_error=[scope.rule(rule) for rule in on_error],
            requires=[scope.path(each) for each in settings.requires],
            output_schema=_output_schema(action),
            delay=duration_message(settings.delay, f"{step_id}: delay"),
        )

    def _before(self, after: Iterable[str]) -> frozenset[str]:
        """The steps that are done when those of `after` are, these included."""
        found: set[str] = set()
        rest = list(after)
        while rest:
            step_id = rest.pop()
            if step_id not in found:
                found.add(step_id)
                rest.extend(self._steps[step_id].after)
        return frozenset(found)


def _compensation(scope: Scope, action: Action[Any, Any], settings: Settings) -> definition_pb2.Compensation | None:
    declared = settings.compensation
    if settings.kind is not COMPENSATABLE:
        if declared is not None:
            raise DefinitionError(f"The step {scope.name!r} is a {settings.kind}: it cannot have a compensation.")
        return None
    if declared is NOT_NEEDED:
        return definition_pb2.Compensation(not_needed=True)
    if not action.has_compensation:
        raise DefinitionError(
            f"The step {scope.name!r} can be compensated, but {action.participant}/{action.name} has no compensation: "
            "write one, or say compensation=NOT_NEEDED, or make it kind=PIVOT or kind=RETRIABLE."
        )
    how = declared or Compensation()
    return definition_pb2.Compensation(
        template="" if how.arguments is None else scope.named("compensation").template(how.arguments),
        retry=None if how.retry is None else how.retry.message(),
        timeout=duration_message(how.timeout, f"{scope.name}: timeout of the compensation"),
    )


def _output_schema(action: Action[Any, Any]) -> str:
    """Nothing is said of the output of an action that has none: nobody reads it, so it may be anything."""
    return "" if action.output_type is NoneType else json_schema(action.output_type)


def _checked(name: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(name):
        raise DefinitionError(f"{name!r} cannot name a {what}: it must match {pattern.pattern}")
    return name


def _named_action(name: str) -> Action[Any, Any]:
    participant, slash, action = name.partition("/")
    if not slash:
        raise DefinitionError(f"{name!r}: an action without code is named as 'participant/action'.")
    return Action(
        participant=_checked(participant, _NAME, "participant"),
        name=_checked(action, _NAME, "action"),
        input_type=object,
        output_type=cast("type[Any]", Any),
        has_compensation=True,
    )
