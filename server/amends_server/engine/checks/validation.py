"""What makes a definition sound: its names, policies, order and kinds. Its data flow is checked in `dataflow`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

from amends_server.engine.checks.amounts import EXPRESSIONS_MAX, PATHS_MAX, amounts
from amends_server.engine.checks.branches import Exclusions
from amends_server.engine.checks.dataflow import check_dataflow
from amends_server.engine.checks.problem import Problem, error
from amends_server.engine.definition import Definition, Kind, OnError, Step
from amends_server.engine.graph import ancestors, order_without_cycles, topological_order
from amends_server.engine.policy import ENDLESS, Retry

STEPS_MAX = 2_000
"""Far above any saga seen in the field. Each outcome looks at all steps, and so costs a few milliseconds at this
size; to start them all side by side takes 20 ms, and to fold the 8,000 events of their rollback 80 to 140 ms.
"""

RULES_MAX = 100
"""Rules for errors of one step: the first that fits decides, and nobody reads on for long."""

FINDINGS_MAX = 1_000
"""Of one definition: whoever has mended so many may ask again."""

NAMED_MAX = 12
"""How many steps of a cycle are named."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}")
STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def check(definition: Definition) -> list[Problem]:
    """Return the findings, as many as are told, those on single fields before those on the order of steps."""
    problems = list(islice(chain(_check_head(definition), _check_steps(definition)), FINDINGS_MAX))
    if problems:
        return problems  # the order of steps means nothing before their names are right
    return list(islice(_check_order(definition), FINDINGS_MAX))


def _check_head(definition: Definition) -> Iterator[Problem]:
    if not NAME.fullmatch(definition.name):
        yield error(
            "name", "NAME_INVALID", "The name must be a letter, then at most 127 letters, digits, `.`, `_` or `-`."
        )
    if not definition.steps:
        yield error("steps", "STEPS_MISSING", "A saga needs at least one step.")
    if len(definition.steps) > STEPS_MAX:
        yield error("steps", "STEPS_TOO_MANY", f"A saga can have {STEPS_MAX} steps at the most; split it.")
    yield from _check_positive("deadline", definition.deadline_us)
    expressions, paths = amounts(definition)
    if expressions > EXPRESSIONS_MAX or paths > PATHS_MAX:
        message = (
            f"There are {expressions} expressions and {paths} paths, and {EXPRESSIONS_MAX} and {PATHS_MAX} are the"
            " most; have steps compute more, or split the saga."
        )
        yield error("steps", "EXPRESSIONS_TOO_MANY", message)


def _check_steps(definition: Definition) -> Iterator[Problem]:
    known = {step.id for step in definition.steps}
    seen: set[str] = set()
    for i, step in enumerate(definition.steps):
        if step.id in seen:
            yield error(f"steps[{i}].id", "STEP_DUPLICATE", f"There is another step `{step.id}`; rename one.")
        seen.add(step.id)
        yield from _check_step(f"steps[{i}]", step, known)


def _check_step(at: str, step: Step, known: set[str]) -> Iterator[Problem]:
    if not STEP_ID.fullmatch(step.id):
        yield error(
            f"{at}.id", "STEP_ID_INVALID", "A step's id must be a letter, then at most 63 letters, digits or `_`."
        )
    if not NAME.fullmatch(step.participant):
        yield error(f"{at}.participant", "PARTICIPANT_MISSING", "Name the participant that does the step.")
    if not NAME.fullmatch(step.action):
        yield error(f"{at}.action", "ACTION_MISSING", "Name the action of the participant.")
    named = {step.id}
    for j, name in enumerate(step.after):
        if name not in known or name in named:
            yield error(f"{at}.after[{j}]", "AFTER_INVALID", f"`{name}` must be the id of another step, named once.")
        named.add(name)
    yield from _check_retry(f"{at}.retry", step.retry)
    yield from _check_positive(f"{at}.timeout", step.timeout_us)
    yield from _check_positive(f"{at}.deadline", step.deadline_us)
    yield from _check_positive(f"{at}.delay", step.delay_us)
    yield from _check_rules(at, step)
    yield from _check_compensation(at, step)


def _check_rules(at: str, step: Step) -> Iterator[Problem]:
    if len(step.on_error) > RULES_MAX:
        yield error(f"{at}.on_error", "RULES_TOO_MANY", f"A step can have {RULES_MAX} rules at the most; join some.")
    for j, rule in enumerate(step.on_error):
        if rule.output_template and rule.then is not OnError.CONTINUE:
            message = "Only a rule that continues gives an output: leave the template out, or continue."
            yield error(f"{at}.on_error[{j}].continue_with.output_template", "RULE_CONTRADICTORY", message)
        if not all(rule.codes):
            yield error(f"{at}.on_error[{j}].codes", "RULE_CONTRADICTORY", "Name the codes, or none for all of them.")


def _check_compensation(at: str, step: Step) -> Iterator[Problem]:
    compensation = step.compensation
    if step.kind is not Kind.COMPENSATABLE:
        if compensation is not None:
            message = f"A {step.kind.value} step is never undone: leave its compensation out, or make it compensatable."
            yield error(f"{at}.compensation", "COMPENSATION_UNEXPECTED", message)
        return
    if compensation is None:
        message = "A compensatable step needs a compensation, or `not_needed` where there is nothing to undo."
        yield error(f"{at}.compensation", "COMPENSATION_MISSING", message)
        return
    if compensation.not_needed and (compensation.template or compensation.retry or compensation.timeout_us is not None):
        message = "A compensation that is not needed has no template, retry or timeout."
        yield error(f"{at}.compensation", "COMPENSATION_CONTRADICTORY", message)
    yield from _check_retry(f"{at}.compensation.retry", compensation.retry)
    yield from _check_positive(f"{at}.compensation.timeout", compensation.timeout_us)


def _check_retry(at: str, retry: Retry | None) -> Iterator[Problem]:
    if retry is None:
        return
    if retry.attempts_max < 1 and retry.attempts_max != ENDLESS:
        yield error(
            f"{at}.attempts_max", "POLICY_INVALID", "There must be at least 1 attempt, or -1 for attempts without end."
        )
    yield from _check_positive(f"{at}.interval", retry.interval_us)
    yield from _check_positive(f"{at}.interval_max", retry.interval_max_us)
    if not 1 <= retry.factor < float("inf"):
        yield error(f"{at}.factor", "POLICY_INVALID", "The factor must be 1 or more.")
    if not 0 <= retry.jitter <= 1:
        yield error(f"{at}.jitter", "POLICY_INVALID", "The jitter must be between 0 and 1.")


def _check_positive(field: str, duration_us: int | None) -> Iterator[Problem]:
    if duration_us is not None and duration_us <= 0:
        yield error(field, "POLICY_INVALID", "The duration must be more than 0; leave it out for the default.")


def _check_order(definition: Definition) -> Iterator[Problem]:
    index = {step.id: i for i, step in enumerate(definition.steps)}
    before = [tuple(index[name] for name in step.after) for step in definition.steps]
    order = topological_order(before)
    if order is None:
        cycle = _find_cycle(before)
        names = _name_all([definition.steps[i].id for i in cycle])
        yield error(f"steps[{cycle[0]}].after", "CYCLE", f"These steps wait for each other: {names}.")
        return
    known = ancestors(before, order)
    yield from _check_kinds(definition, known)
    yield from check_dataflow(definition, index, known)


def _check_kinds(definition: Definition, known: list[int]) -> Iterator[Problem]:
    """From a pivot or retriable step on there is no way back, so all that may turn the saga back must come before.

    What runs only where the step itself does not, in another branch, is in nobody's way.
    """
    steps = definition.steps
    apart = Exclusions([step.when for step in steps])
    needed = sum(1 << i for i, step in enumerate(steps) if step.kind is not Kind.RETRIABLE)
    for i, step in enumerate(steps):
        missing = 0 if step.kind is Kind.COMPENSATABLE else needed & ~known[i] & ~(1 << i)
        other = next((j for j in _bits(missing) if not apart.between(i, j)), None)
        if other is not None:
            message = (
                f"`{step.id}` is {step.kind.value}, so from there on the saga cannot turn back;"
                f" the {steps[other].kind.value} step `{steps[other].id}` must come before it, be retriable, or"
                " stand in a branch that excludes it."
            )
            yield error(f"steps[{other}].kind", "NO_WAY_BACK", message)


def _bits(number: int) -> Iterator[int]:
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


def _find_cycle(before: list[tuple[int, ...]]) -> list[int]:
    """Follow predecessors among the steps that wait for ever until one comes up again."""
    waiting = set(range(len(before))).difference(order_without_cycles(before))
    path: dict[int, None] = {}
    last = min(waiting)
    while last not in path:
        path[last] = None
        last = next(p for p in before[last] if p in waiting)
    steps = list(path)
    return [*steps[steps.index(last) :], last][::-1]


def _name_all(names: list[str]) -> str:
    """Name a few, and that there are more: a finding goes into an answer's trailers, which hold little."""
    shown = names if len(names) <= NAMED_MAX else [*names[: NAMED_MAX // 2], "…", *names[-NAMED_MAX // 2 :]]
    return " → ".join(shown)
