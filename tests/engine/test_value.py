"""Values: what they promise beyond `dataclasses.dataclass`. That nobody assigns to them is for the type checkers."""

from __future__ import annotations

import pytest

from amends_server.engine.payload import Error, Json
from amends_server.engine.state import CallState, StepState
from amends_server.engine.value import dataclass, replace


@dataclass(frozen=True, slots=True)
class Place:
    row: int
    column: int = 1


def test_values_are_equal_by_content_and_serve_as_keys() -> None:
    assert Place(1) == Place(1, 1) != Place(2)
    assert {Place(1): "here"}[Place(1, 1)] == "here"
    assert len({Json("1"), Json("1"), Error("A", "b"), Error("A", "b")}) == 2


def test_a_copy_differs_where_it_is_said_and_leaves_the_original_as_it_was() -> None:
    step = StepState(unproven=1)
    changed = replace(step, unproven=2, action=CallState(attempts=3))
    assert (step.unproven, step.action) == (1, CallState())
    assert changed == StepState(unproven=2, action=CallState(attempts=3))


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AttributeError):
        replace(Place(1), colour="red")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Place(1).colour = "red"  # type: ignore[attr-defined]
