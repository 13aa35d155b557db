"""What the paths of templates stand for in a given saga, and the payloads that follow from it."""

from __future__ import annotations

from typing import cast

from amends_server.engine.payload import Error, Json, Payload
from amends_server.engine.state import State, StepState
from amends_server.engine.template import JsonValue, Path, Template, TemplateError, parse_json


def fill(template: Template, state: State) -> Payload:
    """Return a template's value in this saga.

    :raises TemplateError: if a path leads nowhere, with the path.
    """
    return template.fill(lambda path: _find(path, state))


def step_input(state: State, index: int) -> Payload | None:
    """Return what a step is or was called with: its frozen input, or the input of the saga where it has no template."""
    if state.graph.nodes[index].input is None:
        return state.started.input
    return state.steps[index].input


def _find(path: Path, state: State) -> Payload | JsonValue:
    match path.root:
        case ("input",):
            return state.started.input
        case ("steps", step, "output"):
            return _output(path, state.step(step))
        case ("steps", step, _):
            error = state.step(step).action.error
            return None if error is None else _error(error)
        case (_, field):
            return _saga_field(state, field)
        case _:
            raise AssertionError(f"{path!r} was not parsed")


def _output(path: Path, step: StepState) -> Payload | None:
    if step.output is None and path.rest:
        raise TemplateError(f"`{path.text}` leads nowhere: the step has no output.")
    return step.output


def _error(error: Error) -> dict[str, JsonValue]:
    data = parse_json(error.data.text) if isinstance(error.data, Json) else None
    return {"code": error.code, "message": error.message, "participant": error.participant, "data": data}


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
