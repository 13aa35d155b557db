"""What the nemesis is going to do, and when: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

CALM_S = 0.5
"""Before the first strike, so that there is something to strike at."""

LASTS_S_MAX = 2.4

PAUSES_S = (0.4, 1.2, 3.0)
"""The longest time between two strikes. A seed takes one of these: some come down on all at once, some leave room."""

RECOVERY_S = 1.5
"""After a strike its target is left alone, so that it is struck again while it recovers, and also after."""


class Kind(StrEnum):
    """A way to hurt something."""

    KILL = "kill -9"
    STOP = "SIGTERM"
    PAUSE = "SIGSTOP"
    CUT = "reset connections"
    STALL = "let connections hang"
    STALL_UP = "let requests hang"
    STALL_DOWN = "let answers hang"
    HANG_AND_CUT = "let connections hang, and then reset them"
    REFUSE = "refuse connections"
    LIMIT = "limit the size of files"
    FULL = "fill the disk"
    COMMIT_LOST = "cut a COMMIT off"
    COMMIT_UNKNOWN = "cut the answer to a COMMIT off"
    COMMIT_LATE = "cut a COMMIT off and deliver it late"
    TERMINATE = "terminate its sessions in the database"
    CRASH = "stop -m immediate"
    FAIL_OVER = "lose it, and promote the standby"


LASTING = frozenset(Kind) - {Kind.CUT, Kind.COMMIT_LOST, Kind.COMMIT_UNKNOWN, Kind.TERMINATE, Kind.FAIL_OVER}
"""Those that last for a time."""

OF_PROCESSES = (Kind.KILL, Kind.KILL, Kind.STOP, Kind.PAUSE)
OF_CONNECTIONS = (Kind.CUT, Kind.STALL, Kind.STALL_UP, Kind.STALL_DOWN, Kind.HANG_AND_CUT, Kind.REFUSE)
OF_COMMITS = (Kind.COMMIT_LOST, Kind.COMMIT_UNKNOWN, Kind.COMMIT_LATE)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be hurt, and how; a kind that is there twice is as likely again."""

    name: str
    kinds: Sequence[Kind]
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing to do: at a time, for a time, both in seconds."""

    at_s: float
    kind: Kind
    target: str
    for_s: float

    def __str__(self) -> str:
        lasting = f" for {self.for_s:.2f} s" if self.kind in LASTING else ""
        return f"{self.target}: {self.kind}{lasting}"


def plan(seed: int, seconds: float, targets: Sequence[Target], *, long_s: float = 0.0) -> list[Strike]:
    """Return the strikes in their order. Some last longer than `long_s`, if it is given: than a lease."""
    rng = random.Random(f"chaos {seed}")
    strikes: list[Strike] = []
    free_at = dict.fromkeys((target.name for target in targets), 0.0)
    at_s, pause_s = CALM_S, rng.choice(PAUSES_S)
    while at_s < seconds:
        free = [target for target in targets if free_at[target.name] <= at_s]
        if free:
            target = rng.choices(free, [target.weight for target in free])[0]
            kind = rng.choice(target.kinds)
            for_s = rng.uniform(0.05, LASTS_S_MAX)
            if long_s and rng.random() < 0.4:
                for_s = rng.uniform(1, 2) * long_s
            if kind is Kind.FAIL_OVER and any(strike.kind is Kind.FAIL_OVER for strike in strikes):
                kind = Kind.CRASH  # there is one standby
            strikes.append(Strike(at_s, kind, target.name, for_s))
            free_at[target.name] = at_s + for_s + RECOVERY_S
        at_s += rng.uniform(0.05, pause_s)
    return strikes
