"""What happened in a world, line by line, with its hash: two runs of one seed tell the same story."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Story:
    """Lines with the virtual time before them, and the states that were seen."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._hash = hashlib.sha256()
        self.lines: list[str] = []
        self.seen: dict[str, int] = {}

    def tell(self, who: str, what: str) -> None:
        """Add a line."""
        line = f"{self._time():10.4f}  {who:<12} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)

    def see(self, state: str) -> None:
        """Note that a rare state was there."""
        self.seen[state] = self.seen.get(state, 0) + 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
