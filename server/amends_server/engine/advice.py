"""What is allowed in a definition and probably not meant: warnings for its author, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from amends_server.engine.advice_order import advise_on_order
from amends_server.engine.definition import Definition, Kind, OnError, Step
from amends_server.engine.path import Path
from amends_server.engine.policy import ENDLESS, TIMEOUT_US
from amends_server.engine.problem import Problem, warning
from amends_server.engine.template import parse_template

PIVOT_ATTEMPTS_FEW = 2
"""A pivot that is tried no oftener than this calls an operator for every short outage."""


def advise(definition: Definition) -> list[Problem]:
    """Return the warnings for a definition that `validation.check` found no errors in."""
    skippable = {step.id for step in definition.steps if _may_be_without_output(step)}
    problems: list[Problem] = []
    for i, step in enumerate(definition.steps):
        at = f"steps[{i}]"
        problems += [*_on_attempts(at, step), *_on_times(at, step, definition), *_on_rules(at, step)]
        if step.when is None:
            problems += _on_skipped(f"{at}.input_template", step.input_template, skippable)
    problems += _on_skipped("output_template", definition.output_template, skippable)
    problems += advise_on_order(definition)
    return problems


def _may_be_without_output(step: Step) -> bool:
    gives_none = any(rule.then is OnError.CONTINUE and not rule.output_template for rule in step.on_error)
    return step.when is not None or gives_none


def _on_attempts(at: str, step: Step) -> Iterator[Problem]:
    attempts_max = step.retry.attempts_max if step.retry else None
    if step.kind is Kind.RETRIABLE and attempts_max not in (None, ENDLESS):
        message = (
            f"A retriable step must succeed in the end; after {attempts_max} attempts an operator is called. Say -1."
        )
        yield warning(f"{at}.retry.attempts_max", "RETRIABLE_GIVES_UP", message)
    if step.kind is Kind.PIVOT and attempts_max is not None and 0 < attempts_max <= PIVOT_ATTEMPTS_FEW:
        message = (
            f"A pivot without verdict blocks both ways, and a short outage outlasts {attempts_max} attempts: give more."
        )
        yield warning(f"{at}.retry.attempts_max", "PIVOT_GIVES_UP_EARLY", message)
    undo = step.compensation.retry if step.compensation else None
    if undo is not None and undo.attempts_max == 1:
        message = "A compensation that is tried once makes the saga STUCK at the first hiccup: give it a few attempts."
        yield warning(f"{at}.compensation.retry.attempts_max", "COMPENSATION_TRIED_ONCE", message)


def _on_times(at: str, step: Step, definition: Definition) -> Iterator[Problem]:
    if definition.deadline_us is not None and step.kind is Kind.COMPENSATABLE:
        if step.delay_us is not None and step.delay_us >= definition.deadline_us:
            message = "The saga's deadline passes while the step is delayed: give the saga longer, or the step less."
            yield warning(f"{at}.delay", "DELAY_BEYOND_DEADLINE", message)
        if step.timeout_us > definition.deadline_us:
            message = "One attempt may take longer than the whole saga: it is waited for before the rollback begins."
            yield warning(f"{at}.timeout", "TIMEOUT_BEYOND_DEADLINE", message)
    if step.deadline_us is not None and step.timeout_us > step.deadline_us and step.timeout_us != TIMEOUT_US:
        message = "One attempt may take longer than all of them together: the step's deadline cuts it off."
        yield warning(f"{at}.timeout", "TIMEOUT_BEYOND_DEADLINE", message)


def _on_rules(at: str, step: Step) -> Iterator[Problem]:
    for j, rule in enumerate(step.on_error):
        if any(not earlier.codes and earlier.when is None for earlier in step.on_error[:j]):
            message = "An earlier rule takes every error: put this one before it, or leave it out."
            yield warning(f"{at}.on_error[{j}]", "RULE_UNREACHABLE", message)
        if rule.then is OnError.RETRY and step.retry is not None and step.retry.attempts_max == 1:
            message = "The step has one attempt, so that nothing is tried again: give its retry policy more."
            yield warning(f"{at}.on_error[{j}]", "RULE_WITHOUT_ATTEMPTS", message)


def _on_skipped(at: str, text: str | None, skippable: set[str]) -> Iterator[Problem]:
    for path in parse_template(text).paths if text else ():
        if path.step in skippable and path.root[-1] == "output" and path.rest:
            yield warning(at, "OUTPUT_MAY_BE_MISSING", _may_be_missing(path))


def _may_be_missing(path: Path) -> str:
    step = path.step
    return (
        f"`{path.text}` leads nowhere if `{step}` is skipped: say what to take then, as in"
        f" ${{steps.{step}.output == null ? 0 : {path.text}}}, or give this step a condition too."
    )
