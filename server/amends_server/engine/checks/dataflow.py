"""What the templates and expressions of a definition may name: steps that come before, and fields that there are.

Where schemas tell the types of fields, operators are checked against them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from dataclasses import replace as copy

from amends_server.engine.checks.problem import Problem, error
from amends_server.engine.data.expressions import Expression, Type, check_types, compile_expression
from amends_server.engine.data.jsonvalue import TemplateError
from amends_server.engine.data.path import Root, parse_path, step_of
from amends_server.engine.data.schema import Schema, parse_schema
from amends_server.engine.data.template import parse_template
from amends_server.engine.definition import Definition, ErrorRule, Step
from amends_server.engine.value import dataclass

NAMED_MAX = 10
"""How many fields are named that a schema has: a finding goes into an answer's trailers, which hold little."""

SCHEMA_PATTERNS_MAX = 500
"""Regular expressions in all schemas of a definition: each takes up to some milliseconds to compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What may be named in one place. `error`: a business error is handled there."""

    visible: Callable[[str], bool]
    schemas: dict[Root, Schema] = field(default_factory=dict[Root, Schema])
    error: bool = False


def check_dataflow(definition: Definition, index: dict[str, int], known: list[int]) -> Iterator[Problem]:
    """Yield what is wrong. `known` holds for each step the steps that come before it, as bits."""
    schemas: dict[Root, Schema] = {}
    problems = list(_check_schemas(definition, schemas))
    yield from problems
    for i, step in enumerate(definition.steps):
        before = Scope(visible=_visible(index, known[i]), schemas=schemas)
        done = copy(before, visible=_visible(index, known[i] | 1 << i))
        yield from _check_step(f"steps[{i}]", step, before, done)
    everything = Scope(visible=_visible(index, (1 << len(definition.steps)) - 1), schemas=schemas)
    yield from check_template("output_template", definition.output_template, everything)


def _check_step(at: str, step: Step, before: Scope, done: Scope) -> Iterator[Problem]:
    yield from _check_condition(f"{at}.when", step.when, before)
    yield from check_template(f"{at}.input_template", step.input_template, before)
    for j, text in enumerate(step.requires):
        yield from _check_path(f"{at}.requires[{j}]", text, before)
    for j, rule in enumerate(step.on_error):
        yield from _check_rule(f"{at}.on_error[{j}]", step, rule, copy(before, error=True))
    if step.compensation:
        yield from check_template(f"{at}.compensation.template", step.compensation.template, done)


def _check_rule(at: str, step: Step, rule: ErrorRule, scope: Scope) -> Iterator[Problem]:
    yield from _check_condition(f"{at}.when", rule.when, scope)
    at = f"{at}.continue_with.output_template"
    problems = list(check_template(at, rule.output_template, scope))
    yield from problems
    schema = scope.schemas.get(("steps", step.id, "output"))
    if rule.output_template and schema is not None and not problems:
        yield from _check_literal(at, rule.output_template, schema)


def _check_literal(at: str, text: str, schema: Schema) -> Iterator[Problem]:
    """Yield why a step cannot have this output, where the template says all of it; else that is found at run time."""
    template = parse_template(text, error=True)
    if template.paths or template.expressions:
        return
    violation = schema.breach(template.fill(lambda _: None))
    if violation is not None:
        where = f"`{violation.at('output')}`" if violation.path else "The whole"
        message = f"This output does not meet the step's output schema. {where}: {violation.message}."
        yield error(at, "OUTPUT_AGAINST_SCHEMA", message)


def _check_schemas(definition: Definition, schemas: dict[Root, Schema]) -> Iterator[Problem]:
    """Yield what is wrong with the schemas, and collect those that are sound by what they are of."""
    texts: list[tuple[str, Root, str | None]] = [("input_schema", ("input",), definition.input_schema)]
    texts += [(f"steps[{i}].output_schema", ("steps", s.id, "output"), s.output_schema)
              for i, s in enumerate(definition.steps)]  # fmt: skip
    patterns: set[str] = set()
    for at, root, text in texts:
        if not text:
            continue
        try:
            schemas[root] = parse_schema(text)
        except TemplateError as problem:
            yield error(at, "SCHEMA_INVALID", str(problem))
            continue
        patterns |= schemas[root].bounds.patterns
        if len(patterns) > SCHEMA_PATTERNS_MAX:
            message = f"The schemas have more than {SCHEMA_PATTERNS_MAX} patterns together: have steps check more."
            yield error(at, "SCHEMA_INVALID", message)
            return


def check_template(at: str, text: str | None, scope: Scope) -> Iterator[Problem]:
    """Yield what is wrong with a template."""
    if not text:
        return
    try:
        template = parse_template(text, error=scope.error)
    except TemplateError as problem:
        yield error(at, "TEMPLATE_INVALID", str(problem))
        return
    for path in template.paths:
        yield from _check_names(at, path.text, path.root, path.rest, scope)
    for expression in template.expressions:
        yield from _check_expression(at, expression, scope)


def _check_condition(at: str, text: str | None, scope: Scope) -> Iterator[Problem]:
    if not text:
        return
    try:
        expression = compile_expression(text, error=scope.error)
    except TemplateError as problem:
        yield error(at, "EXPRESSION_INVALID", str(problem))
        return
    kind = expression.program.return_type()
    if kind not in (Type.BOOL, Type.DYN):
        message = f"`{text}` is of type {kind.name().lower()}: a condition must be true or false."
        yield error(at, "EXPRESSION_INVALID", message)
        return
    yield from _check_expression(at, expression, scope, condition=True)


def _check_path(at: str, text: str, scope: Scope) -> Iterator[Problem]:
    try:
        path = parse_path(text)
    except TemplateError as problem:
        yield error(at, "PATH_INVALID", str(problem))
        return
    yield from _check_names(at, text, path.root, path.rest, scope)


def _check_expression(at: str, expression: Expression, scope: Scope, *, condition: bool = False) -> Iterator[Problem]:
    problems = [
        problem for v in expression.variables for problem in _check_names(at, expression.text, v.root, v.rest, scope)
    ]
    yield from problems
    types = _types(expression, scope)
    if problems or not types:
        return
    try:
        kind = check_types(expression.text, {".".join(root): Type.DYN for root in expression.roots} | types)
    except TemplateError as problem:
        yield error(at, "EXPRESSION_INVALID", str(problem))
        return
    if condition and kind is not None and kind not in (Type.BOOL, Type.DYN):
        message = f"`{expression.text}` is of type {kind.name().lower()}: a condition must be true or false."
        yield error(at, "EXPRESSION_INVALID", message)


def _types(expression: Expression, scope: Scope) -> dict[str, Type]:
    """Return the types of the fields that an expression reads, as far as schemas tell them, by dotted names."""
    types: dict[str, Type] = {}
    for variable in expression.variables:
        schema = scope.schemas.get(variable.root)
        found = schema.field(variable.rest) if schema and variable.rest else None
        if found is not None and found.type is not None and found.depth:
            types[".".join((*variable.root, *variable.rest[: found.depth]))] = found.type
    return types


def _check_names(at: str, text: str, root: Root, rest: Sequence[str | int], scope: Scope) -> Iterator[Problem]:
    step = step_of(root)
    if step is not None and not scope.visible(step):
        message = f"`{text}` needs a step that comes before: put `{step}` in `after`, or name one that is there."
        yield error(at, "STEP_NOT_VISIBLE", message)
        return
    schema = scope.schemas.get(root)
    if schema is None:
        return
    names = [str(name) for name in rest[: next((i for i, n in enumerate(rest) if isinstance(n, int)), len(rest))]]
    found = schema.field(names)
    if found.unknown is not None:
        known = ", ".join(found.known[:NAMED_MAX]) or "none"
        message = f"`{text}` leads nowhere: by its schema there is no `{found.unknown}`; the fields there are {known}."
        yield error(at, "FIELD_UNKNOWN", message)


def _visible(index: dict[str, int], known: int) -> Callable[[str], bool]:
    return lambda step: step in index and bool(known >> index[step] & 1)
