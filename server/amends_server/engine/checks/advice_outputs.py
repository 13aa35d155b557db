"""Warnings about what reads the output of a step that may have none: it may be skipped, or an error passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amends_server.engine.checks.branches import Needs, needs_of
from amends_server.engine.checks.problem import Problem, warning
from amends_server.engine.data.expressions import Expression, compile_expression
from amends_server.engine.data.template import parse_template
from amends_server.engine.definition import Definition, OnError, Step

Read = tuple[str, str]
"""A step whose output is looked into, and the text that does it."""


def advise_on_outputs(definition: Definition) -> Iterator[Problem]:
    """Yield the warnings for a definition that `validation.check` found no errors in."""
    needs = {step.id: needs_of(step.when) for step in definition.steps}
    silent = {step.id for step in definition.steps if _gives_none(step)}

    def may_lack(name: str, reader: Needs) -> bool:
        return name in silent or not reader.imply(needs[name])

    for i, step in enumerate(definition.steps):
        for at, (_, text) in _of_itself(f"steps[{i}].compensation.template", step):
            yield warning(at, "ARGUMENTS_MAY_BE_MISSING", _may_be_unknown(step.id, text))
        for at, (name, text) in _read_by(f"steps[{i}]", step):
            if may_lack(name, needs[step.id]):
                yield warning(at, "OUTPUT_MAY_BE_MISSING", _may_be_missing(name, text))
    for name, text in _in_template(definition.output_template):
        if may_lack(name, needs_of(None)):
            yield warning("output_template", "OUTPUT_MAY_BE_MISSING", _may_be_missing(name, text))


def _gives_none(step: Step) -> bool:
    return any(rule.then is OnError.CONTINUE and not rule.output_template for rule in step.on_error)


def _read_by(at: str, step: Step) -> Iterator[tuple[str, Read]]:
    """Yield what a step reads, with the field. What only runs under a condition may go by that condition."""
    yield from _told(f"{at}.when", step.when, _in_condition)
    if step.when is not None:
        return
    yield from _told(f"{at}.input_template", step.input_template, _in_template)
    for j, rule in enumerate(step.on_error):
        yield from _told(f"{at}.on_error[{j}].when", rule.when, _in_condition)
        yield from _told(f"{at}.on_error[{j}].continue_with.output_template", rule.output_template, _in_template)
    arguments = step.compensation.template if step.compensation else None
    for where, read in _told(f"{at}.compensation.template", arguments, _in_template):
        if read[0] != step.id:
            yield where, read


def _of_itself(at: str, step: Step) -> Iterator[tuple[str, Read]]:
    """Yield what a compensation reads of the output of its own action, which is there only if an answer came."""
    arguments = step.compensation.template if step.compensation else None
    return ((at, read) for at, read in _told(at, arguments, _in_template) if read[0] == step.id)


def _told(at: str, text: str | None, read: Callable[[str | None], Iterator[Read]]) -> Iterator[tuple[str, Read]]:
    return ((at, found) for found in read(text))


def _in_template(text: str | None) -> Iterator[Read]:
    template = parse_template(text, error=True) if text else None
    if template is None:
        return
    for path in template.paths:
        if path.step is not None and path.root[-1] == "output" and path.rest:
            yield path.step, path.text
    for expression in template.expressions:
        yield from _in_expression(expression)


def _in_condition(text: str | None) -> Iterator[Read]:
    if text:
        yield from _in_expression(compile_expression(text, error=True))


def _in_expression(expression: Expression) -> Iterator[Read]:
    """Yield each output once. Whoever looks at it as a whole too, as in a comparison with null, knows of the case."""
    outputs = [variable for variable in expression.variables if variable.root[-1] == "output"]
    known = {variable.root for variable in outputs if not variable.rest}
    for root, *_ in {variable.root: None for variable in outputs if variable.root not in known}.items():
        yield root[1], expression.text


def _may_be_unknown(step: str, text: str) -> str:
    return (
        f"`{text}` has no value if the outcome of `{step}` is unknown, as after a timeout, and then it is not undone:"
        f" say what to take then, as in ${{steps.{step}.output == null ? … : …}}, or leave it to the participant, which"
        " gets the input, and the output if there is one."
    )


def _may_be_missing(step: str, text: str) -> str:
    return (
        f"`{text}` has no value if `{step}` is skipped, or goes on without an output: say what to take then, as in"
        f" ${{steps.{step}.output == null ? … : …}}, or give this step the condition of `{step}`."
    )
