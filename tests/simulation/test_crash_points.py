"""The process dies at every effect of every scenario, recovers, and no invariant breaks; in small ones at every two."""

from __future__ import annotations

import pytest

from tests.simulation.crash_points import SCENARIOS, Scenario, points, run


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_i32_a_crash_at_any_effect_is_recovered_from(scenario: Scenario) -> None:
    died = 0
    for point in points(scenario):
        world = run(scenario, *point)
        story = "\n".join(world.story.lines)
        assert not world.violation, f"{scenario.name}, dead at {point}: {world.violation}\n{story}"
        died += "server-2" in story
    assert died > 0
