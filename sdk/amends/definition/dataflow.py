"""What flows into the steps of a saga, as texts of its definition, checked: each value is there when it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from amends.definition.operators import condition
from amends.definition.rules import CompensateOnError, ContinueOnError, ErrorFields, ErrorRule, RetryOnError
from amends.definition.templates import template_of
from amends.definition.terms import Held, Origin, Term, held
from amends.errors import DefinitionError
from amends.v1 import definition_pb2


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be used in one place: values of `saga`, and those of the steps `before`. `name` is the place in errors.

    `handles_error`: a business error is at hand there.
    """

    saga: object
    name: str
    before: frozenset[str]
    handles_error: bool = False

    def template(self, value: object) -> str:
        """A template.

        :raises DefinitionError: if it uses what is not there, or holds what no definition can.
        """
        template = template_of(value, name=self.name)
        self.check(template.origins)
        return template.text

    def named(self, part: str) -> Scope:
        """The same, for a part of the place."""
        return replace(self, name=f"{self.name}: {part}")

    def condition(self, value: object) -> Term | None:
        """The term of a condition; None if there is none.

        :raises DefinitionError: if it is no condition, or uses what is not there.
        """
        if value is None:
            return None
        term = condition(value)
        self.check(term.origins)
        return term

    def path(self, value: object) -> str:
        """A path to a value.

        :raises DefinitionError: if it is something else.
        """
        if not isinstance(value, Held) or not held(value).is_path:
            raise DefinitionError(f"{self.name}: requires: {value!r} is no reference such as saga.input.name.")
        self.check(held(value).origins)
        return held(value).text

    def rule(self, rule: ErrorRule[object]) -> definition_pb2.ErrorRule:
        """A rule for business errors.

        :raises DefinitionError: if it uses what is not there, or holds what no definition can.
        """
        scope = replace(self.named("on_error"), handles_error=True)
        test = scope.condition(rule.when)
        message = definition_pb2.ErrorRule(codes=rule.codes, when="" if test is None else test.text)
        match rule.then:
            case CompensateOnError():
                message.compensate.SetInParent()
            case RetryOnError():
                message.retry.SetInParent()
            case ContinueOnError(output):
                message.continue_with.output_template = scope.template(output)
        return message

    def check(self, origins: Iterable[Origin]) -> None:
        """:raises DefinitionError: if one of them is not there."""
        for origin in origins:
            if origin.owner is ErrorFields:
                self._check_error(origin)
            elif origin.owner is not self.saga:
                raise DefinitionError(f"{self.name}: {origin.path} belongs to another saga.")
            elif origin.step is not None and origin.step not in self.before:
                raise DefinitionError(
                    f"{self.name}: {origin.path} is used, but the step {origin.step!r} does not run before: see after."
                )

    def _check_error(self, origin: Origin) -> None:
        if not self.handles_error:
            raise DefinitionError(f"{self.name}: {origin.path} is there in the rules of on_error only.")
