"""How much there is to compute in a definition, counted before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterator

from amends_server.engine.data.jsonvalue import TemplateError, parse_json
from amends_server.engine.data.path import looks_like_path
from amends_server.engine.definition import Definition

EXPRESSIONS_MAX = 1_000
"""Of a definition: each may take a millisecond to compile, and nothing else happens meanwhile."""

PATHS_MAX = 20_000
"""Of a definition: some tenths of a second."""


def amounts(definition: Definition) -> tuple[int, int]:
    """Return how many expressions and how many paths a definition has. What is no JSON has none."""
    conditions, templates, paths = 0, [definition.output_template], 0
    for step in definition.steps:
        conditions += sum(each is not None for each in (step.when, *(rule.when for rule in step.on_error)))
        templates += [step.input_template, *(rule.output_template for rule in step.on_error)]
        templates += [step.compensation.template if step.compensation else None]
        paths += len(step.requires)
    places = [looks_like_path(text) for template in templates if template for text in _places(template)]
    return conditions + places.count(False), paths + places.count(True)


def _places(template: str) -> Iterator[str]:
    """Yield what stands in braces."""
    try:
        rest = [parse_json(template)]
    except TemplateError:
        return
    while rest:
        value = rest.pop()
        if isinstance(value, str) and value.startswith("${") and value.endswith("}"):
            yield value[2:-1].strip()
        elif isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value
