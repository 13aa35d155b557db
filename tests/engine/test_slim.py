"""States that are folded without data stand as those with data do."""

from __future__ import annotations

import pytest
from hypothesis import given

from amends_server.engine import slim as slimming
from amends_server.engine.definition import Definition
from amends_server.engine.evolve import fold
from amends_server.engine.payload import Json
from amends_server.engine.slim import slim
from tests.engine.strategies import sound_definitions
from tests.engine.test_properties import TAPES, examples, run


@examples(60)
@given(sound_definitions(), TAPES)
def test_i38_a_state_without_data_has_the_same_statuses(definition: Definition, tape: bytes) -> None:
    world = run(definition, tape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slimming, "LARGE_BYTES", 0)
        thin = fold(world.graph, [slim(event) for event in world.journal])
    assert all(step.output in (None, Json("null")) for step in thin.steps)
    assert (thin.sequence, thin.status, thin.paused) == (world.state.sequence, world.state.status, world.state.paused)
    assert [step.status for step in thin.steps] == [step.status for step in world.state.steps]
