"""What is allowed in a definition and probably not meant: warnings for its author, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from amends_server.engine.checks.advice_order import advise_on_order
from amends_server.engine.checks.advice_outputs import advise_on_outputs
from amends_server.engine.checks.advice_rules import advise_on_rules
from amends_server.engine.checks.problem import Problem, warning
from amends_server.engine.definition import Definition, Kind, Step
from amends_server.engine.policy import ENDLESS, SECOND_US, TIMEOUT_US

PIVOT_ATTEMPTS_FEW = 2
"""A pivot that is tried no oftener than this calls an operator for every short outage."""

PIVOT_SHORT_US = 60 * SECOND_US
"""And so does one that is tried for less than this: a restart or a failover may take as long."""


def advise(definition: Definition) -> list[Problem]:
    """Return the warnings for a definition that `validation.check` found no errors in."""
    problems: list[Problem] = []
    for i, step in enumerate(definition.steps):
        at = f"steps[{i}]"
        problems += [*_on_attempts(at, step), *_on_times(at, step, definition), *advise_on_rules(at, step)]
    problems += advise_on_outputs(definition)
    problems += advise_on_order(definition)
    return problems


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
    if step.kind is Kind.PIVOT and step.deadline_us is not None and step.deadline_us < PIVOT_SHORT_US:
        message = "A pivot without verdict blocks both ways, and a short outage outlasts this deadline: give it longer."
        yield warning(f"{at}.deadline", "PIVOT_GIVES_UP_EARLY", message)
    if step.kind is Kind.RETRIABLE and step.deadline_us is not None:
        message = "A retriable step must succeed in the end; after its deadline an operator is called. Give it none."
        yield warning(f"{at}.deadline", "RETRIABLE_GIVES_UP", message)
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
