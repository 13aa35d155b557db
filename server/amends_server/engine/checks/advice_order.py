"""Warnings about a step among its neighbours: what stays done when others fail, and what waits without end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from amends_server.engine.checks.problem import Problem, warning
from amends_server.engine.definition import Definition, Kind, Step
from amends_server.engine.graph import ancestors, default_retry, topological_order
from amends_server.engine.policy import ENDLESS, SECOND_US

SLOW_US = 300 * SECOND_US
"""An attempt that may take longer is waited for by its author's wish: far above the default."""

_READ = re.compile(r"\bsteps\.(\w+)\.(?:output|error)\b")


def advise_on_order(definition: Definition) -> Iterator[Problem]:
    """Yield the warnings for a definition that `validation.check` found no errors in."""
    steps = definition.steps
    index = {step.id: i for i, step in enumerate(steps)}
    before = [tuple(index[name] for name in step.after) for step in steps]
    order = topological_order(before)
    assert order is not None, "a definition with a cycle was checked"
    known = ancestors(before, order)
    owing = sum(1 << i for i, step in enumerate(steps) if step.owes_compensation)
    turning = sum(1 << i for i, step in enumerate(steps) if step.kind is not Kind.RETRIABLE)
    read = _read(definition)
    for i, step in enumerate(steps):
        others = ~(known[i] | 1 << i)
        if known[i] & owing and turning & others and step.id not in read and _is_bare(step):
            yield warning(f"steps[{i}].compensation.not_needed", "EFFECT_NOT_UNDONE", _not_undone(step))
        if _is_boundless(step, definition):
            held = known[i] & owing
            later = next((j for j, before_it in enumerate(known) if before_it >> i & 1 and turning >> j & 1), None)
            if held or later is not None:
                waits = steps[(held & -held).bit_length() - 1 if held else later or 0]
                yield warning(f"steps[{i}].deadline", "SLOW_WITHOUT_DEADLINE", _boundless(step, waits, bool(held)))


def _is_bare(step: Step) -> bool:
    """Tell whether a step is called for what it does, and says that nothing undoes it: nothing comes back from it."""
    return step.compensation is not None and step.compensation.not_needed and step.output_schema is None


def _is_boundless(step: Step, definition: Definition) -> bool:
    if step.kind is Kind.RETRIABLE or step.deadline_us is not None:
        return False
    if step.kind is Kind.COMPENSATABLE and definition.deadline_us is not None:
        return False
    attempts_max = (step.retry or default_retry(step.kind)).attempts_max
    return attempts_max == ENDLESS or step.timeout_us > SLOW_US


def _read(definition: Definition) -> set[str]:
    """Return the steps whose outputs or errors are read somewhere."""
    texts = [definition.output_template]
    for step in definition.steps:
        texts += [step.when, step.input_template, *step.requires]
        texts += [text for rule in step.on_error for text in (rule.when, rule.output_template)]
        texts += [step.compensation.template if step.compensation else None]
    return {name for text in texts if text for name in _READ.findall(text)}


def _not_undone(step: Step) -> str:
    return (
        f"Nothing reads the output of `{step.id}`, so it is called for its effect, which stays when a later step fails:"
        " give it a compensation, or make it retriable and last; a mere check belongs before the first effect."
    )


def _boundless(step: Step, waits: Step, held: bool) -> str:
    what = f"what `{waits.id}` did is held" if held else f"`{waits.id}` waits"
    return f"Nothing bounds how long `{step.id}` is tried, and {what} for as long: give the step a deadline."
