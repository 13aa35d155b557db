"""Runs seeds, and shrinks one that fails to the faults that it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amends.testing.simulation.dice import Dice
from amends.testing.simulation.subject import Subject
from amends.testing.simulation.world import World, sagas_of

SHRINK_RUNS_MAX = 400
"""A run takes some milliseconds; a few faults are left after far fewer runs than these."""


@dataclass(frozen=True)
class Outcome:
    """What became of a seed: what was wrong (empty if nothing was), its story, and the faults that struck."""

    seed: int
    violation: str
    digest: str
    lines: list[str]
    seen: dict[str, int]
    struck: list[str]
    muted: frozenset[str]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seed {self.seed}: {self.violation}",
                *self.lines,
                f"{len(self.struck)} faults are left:",
                *(f"    {fault}" for fault in self.struck),
            ]
        )


def run_seed(subject: Subject, seed: int, muted: frozenset[str] = frozenset()) -> Outcome:
    """Run a world of this seed, without the faults that are muted."""
    dice = Dice(seed, muted)
    world = World(dice, subject)
    world.run(world.live(sagas_of(dice, subject)))
    story = world.story
    return Outcome(seed, world.violation, story.digest, story.lines, story.seen, dice.struck, muted)


def shrink(subject: Subject, failed: Outcome) -> Outcome:
    """Take faults away as long as the seed fails in the same way: first many at a time, then one by one."""
    best, runs = failed, 0
    size = max(1, len(best.struck) // 2)
    while runs < SHRINK_RUNS_MAX:
        smaller = False
        start = 0
        while start < len(best.struck) and runs < SHRINK_RUNS_MAX:
            runs += 1
            tried = run_seed(subject, best.seed, best.muted | frozenset(best.struck[start : start + size]))
            if kind_of(tried.violation) == kind_of(failed.violation) and len(tried.struck) < len(best.struck):
                best, smaller = tried, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return best


def kind_of(violation: str) -> str:
    """Return what two violations must have in common: the invariant, or the first words."""
    match = re.match(r"I\d+|[^:]{0,30}", violation)
    return match[0] if match else ""
