"""What the names in templates and expressions stand for in a given saga, and the payloads that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from amends_server.engine.data.jsonvalue import JsonValue, TemplateError, parse_json
from amends_server.engine.data.making import Making, TooMuch
from amends_server.engine.data.path import Path, Root, Values
from amends_server.engine.data.template import Template
from amends_server.engine.payload import Error, Json, Payload
from amends_server.engine.state import State


def making_of(state: State) -> Making:
    """Return what the templates of one decision on this saga share."""
    return Making(state.graph.payload_bytes_max)


def fill(template: Template, state: State, error: Error | None = None, making: Making | None = None) -> Payload:
    """Return a template's value in this saga; `error` is the business error that it is for.

    :raises TemplateError: if a path leads nowhere, an expression has no value, and which, or the value is too large.
    """
    return template.fill(lambda root: _find(root, state, error), making or making_of(state))


def values_of(state: State, making: Making, error: Error | None = None) -> Values:
    """Return the values that conditions are decided on."""
    return Values(lambda root: _find(root, state, error), making)


def missing_of(paths: Iterable[Path], state: State, making: Making) -> list[str]:
    """Return those paths that lead to no value: nowhere, to null, or into data that cannot be read.

    :raises TooMuch: if this decision has read enough.
    """
    values = values_of(state, making)
    return [path.text for path in paths if not _leads_to_value(path, values)]


def _leads_to_value(path: Path, values: Values) -> bool:
    if not path.rest:
        return values.whole(path.root) is not None
    try:
        return values.at(path) is not None
    except TooMuch:
        raise
    except TemplateError:
        return False


def step_input(state: State, index: int) -> Payload | None:
    """Return what a step is or was called with: its frozen input, or the input of the saga where it has no template."""
    if state.graph.nodes[index].input is None:
        return state.started.input
    return state.steps[index].input


def undone_input(state: State, index: int) -> Payload | None:
    """Return what a step that is to be undone was called with.

    Of one that a restored store knows nothing of, it is what it would have been, as far as that can be told: its
    participant knows it, or has nothing to undo.
    """
    template = state.graph.nodes[index].input
    if template is None or state.steps[index].action.attempts:
        return step_input(state, index)
    try:
        return fill(template, state)
    except TemplateError:
        return None


def _find(root: Root, state: State, error: Error | None) -> Payload | JsonValue:
    match root:
        case ("input",):
            return state.started.input
        case ("steps", step, "output"):
            return state.step(step).output
        case ("steps", step, _):
            return _error(state.step(step).error)
        case ("error",):
            return _error(error)
        case (_, field):
            return _saga_field(state, field)
        case _:
            raise AssertionError(f"{root!r} was not parsed")


def _error(error: Error | None) -> JsonValue:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "participant": error.participant, "data": _data(error)}


def _data(error: Error) -> JsonValue:
    """Return what a participant gave with an error, as far as it can be read."""
    if not isinstance(error.data, Json):
        return None
    try:
        return parse_json(error.data.text)
    except TemplateError as problem:
        raise TemplateError(f"The data of the error {error.code} cannot be read: {problem}") from None


def _saga_field(state: State, field: str) -> JsonValue:
    started = state.started
    match field:
        case "id":
            return started.saga_id
        case "namespace":
            return started.namespace
        case "definition":
            return state.graph.definition.name
        case _:
            return cast("dict[str, JsonValue]", started.labels)
