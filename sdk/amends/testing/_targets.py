"""Targets: what tests call a step by, and the steps that they mean."""

from __future__ import annotations

from typing import Any

from amends.action import Action
from amends.definition.steps import Step
from amends_server.engine.graph import Graph

Target = Action[Any, Any] | Step[Any] | str
"""What a call is known by: its action, its step, or the step's id."""


def steps_of(graph: Graph, target: Target) -> list[str]:
    """Return the ids of the steps that are meant."""
    steps = [node.step for node in graph.nodes]
    match target:
        case Action():
            return [s.id for s in steps if (s.participant, s.action) == (target.participant, target.name)]
        case Step():
            return [s.id for s in steps if s.id == target.id]
        case str():
            return [s.id for s in steps if s.id == target]


def name_of(target: Target) -> str:
    """Return a target in words."""
    match target:
        case Action():
            return f"{target.participant}/{target.name}"
        case Step():
            return f"step {target.id}"
        case str():
            return f"step {target}"
