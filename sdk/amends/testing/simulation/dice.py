"""The luck of a seed. Each question has a name, and its answer hangs on nothing else: so faults can be taken away
one by one, and what is left over stays as it was. That is how a failing seed is shrunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_STEPS = 1 << 32

MOODS = (0.0, 0.0, 0.5, 1.0, 3.0)
"""How often a kind of fault strikes in this seed, against how often it does on the whole: many seeds have few kinds."""


class Dice:
    """Answers by name. `struck` are the faults that happened, in their order; `muted` those that must not."""

    def __init__(self, seed: int, muted: frozenset[str] = frozenset()) -> None:
        self.seed = seed
        self.muted = muted
        self.struck: list[str] = []
        self.calm = False
        self._moods: dict[str, float] = {}
        self._asked: dict[str, int] = {}

    def strikes(self, kind: str, about: str, chance: float) -> bool:
        """Tell whether a fault, or anything else that may be taken away, happens."""
        name = self.unique(f"{kind} {about}")
        if self.calm or self._fraction(name) >= chance * self._mood(kind) or name in self.muted:
            return False
        self.struck.append(name)
        return True

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number between the two."""
        return low + (high - low) * self._fraction(self.unique(name))

    def choose(self, name: str, choices: Sequence[T]) -> T:
        """Return one of them."""
        return choices[int(self._fraction(self.unique(name)) * len(choices))]

    def unique(self, name: str) -> str:
        """Number the questions of one name."""
        count = self._asked[name] = self._asked.get(name, 0) + 1
        return name if count == 1 else f"{name} ({count})"

    def _mood(self, kind: str) -> float:
        mood = self._moods.get(kind)
        if mood is None:
            mood = self._moods[kind] = MOODS[int(self._fraction(f"mood {kind}") * len(MOODS))]
        return mood

    def _fraction(self, name: str) -> float:
        return int.from_bytes(blake2b(f"{self.seed}/{name}".encode(), digest_size=4).digest(), "big") / _STEPS


class NoDice(Dice):
    """Nothing happens by chance, and all takes as long as it mostly does."""

    def strikes(self, kind: str, about: str, chance: float) -> bool:
        return False

    def number(self, name: str, low: float, high: float) -> float:
        return low

    def choose(self, name: str, choices: Sequence[T]) -> T:
        return choices[0]
