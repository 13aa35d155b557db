"""What a client knows of its transfers: one line a fact, written at once, so that a kill loses none that was told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Fact = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A transfer that somebody wants."""

    id: str
    source_bank: str
    source: str
    destination_bank: str
    destination: str
    amount: int
    forward: bool


@dataclass(slots=True)
class Known:
    """What was told of a transfer: `ends` by those who started it or asked, `seen` by whoever watched it."""

    order: Order
    acknowledged: bool = False
    given_up: bool = False
    cancelled: bool = False
    ends: list[str] = field(default_factory=list[str])
    watched: bool = False
    watch_ended: bool = False
    seen: list[int] = field(default_factory=list[int])
    saw_the_end: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be found out."""
        return self.given_up or (bool(self.ends) and self.watched == self.watch_ended)


class Diary:
    """The facts of one client. Opened again, it goes on where the last process ended."""

    def __init__(self, path: Path) -> None:
        self.known: dict[str, Known] = {}
        self.complaints: list[str] = []
        self.refusals: dict[str, int] = {}
        for fact in _facts(path):
            self._take(fact)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, saga: str, **more: object) -> None:
        """Write a fact down."""
        fact: Fact = {"what": what, "saga": saga, **more}
        os.write(self._file, json.dumps(fact).encode() + b"\n")
        self._take(fact)

    def _take(self, fact: Fact) -> None:
        more = dict(fact)
        what, saga = str(more.pop("what")), str(more.pop("saga"))
        if what == "complained":
            self.complaints.append(f"{saga}: {more['text']}")
            return
        if what == "refused":
            code = str(more["code"])
            self.refusals[code] = self.refusals.get(code, 0) + 1
            return
        if what == "wanted":
            watched = bool(more.pop("watched"))
            self.known[saga] = Known(Order(id=saga, **more), watched=watched)  # type: ignore[arg-type]
            return
        known = self.known[saga]
        match what:
            case "acknowledged":
                known.acknowledged = True
            case "given_up":
                known.given_up = True
            case "cancelled":
                known.cancelled = True
            case "ended":
                known.ends.append(str(more["status"]))
            case "seen":
                known.seen.append(int(str(more["sequence"])))
                known.saw_the_end = bool(more["final"])
            case "watch_ended":
                known.watch_ended = True
            case _:
                raise AssertionError(what)


def _facts(path: Path) -> Iterator[Fact]:
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for line in lines[:-1]:  # a kill may have torn the last one: then it has no end
        yield json.loads(line)
