"""Seeds of the simulation with the definitions of its tests."""

from __future__ import annotations

from amends.testing.simulation import seeds
from amends.testing.simulation.seeds import Outcome
from tests.simulation.definitions import SUBJECT


def run_seed(seed: int) -> Outcome:
    """Run a world of this seed."""
    return seeds.run_seed(SUBJECT, seed)


def shrink(failed: Outcome) -> Outcome:
    """Take away what a failing seed does not need."""
    return seeds.shrink(SUBJECT, failed)
