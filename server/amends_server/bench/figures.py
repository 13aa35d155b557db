"""Figures of one measurement that is not a row of the table: how amends behaves as sagas become many."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from amends_server.bench.taken import Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured with that many sagas. The names of `values` end with their units."""

    workload: str
    sagas: int
    values: dict[str, float]
    taken: Taken

    def to_json(self) -> str:
        """The figures as one line of JSON."""
        row = {"workload": self.workload, "sagas": self.sagas, **self.values, "taken": asdict(self.taken)}
        return json.dumps(row)

    def to_text(self) -> str:
        """The figures as one line for people."""
        shown = ", ".join(f"{name} {value:,g}" for name, value in self.values.items())
        return f"{self.workload} at {self.sagas:,} sagas: {shown}"
