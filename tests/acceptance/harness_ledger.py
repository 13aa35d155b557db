"""What participants were asked and what they did, as lines of a file that only grows."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amends.v1 import participant_pb2

WAIT_S = 60.0
"""The longest that a test waits for something that should happen at once, or within the start of a process: enough for
a machine that is so busy that the start takes ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A line. `kind` is start or end of a call, or an effect had or undone; `time_s` is of the monotonic clock."""

    kind: str
    time_s: float
    saga: str
    step: str
    action: str
    compensating: bool
    key: str
    execute_key: str
    attempt: int
    epoch: int
    request: bytes
    outcome: str = ""

    @property
    def name(self) -> str:
        """The step, with `undo` before it for a compensation."""
        return f"undo {self.step}" if self.compensating else self.step

    @property
    def execute_request(self) -> participant_pb2.ExecuteRequest:
        """What was asked, of an action."""
        assert not self.compensating
        return participant_pb2.ExecuteRequest.FromString(self.request)

    @property
    def compensate_request(self) -> participant_pb2.CompensateRequest:
        """What was asked, of a compensation."""
        assert self.compensating
        return participant_pb2.CompensateRequest.FromString(self.request)

    def write(self) -> bytes:
        """The line of this record."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["request"] = base64.b64encode(self.request).decode()
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def read(cls, line: str) -> Record:
        """The record of a line."""
        fields = json.loads(line)
        return cls(**{**fields, "request": base64.b64decode(fields["request"])})


class Ledger:
    """The file. Several participants may share one, also in several processes; each line is one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._grown = asyncio.Event()
        self._read: list[Record] = []
        self._read_bytes = 0

    def close(self) -> None:
        os.close(self._file)

    def add(self, record: Record) -> None:
        os.write(self._file, record.write())
        self._grown.set()

    def records(self, saga: str | None = None) -> list[Record]:
        """All records in order, or those of one saga."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")
        self._read += [Record.read(line.decode()) for line in whole[0].splitlines()]
        self._read_bytes += len(whole[0]) + len(whole[1])
        return [record for record in self._read if saga in (None, record.saga)]

    def calls(self, saga: str | None = None, name: str | None = None) -> list[Record]:
        """The calls as they began; `name` is a step, or `undo` and a step."""
        return [r for r in self.records(saga) if r.kind == "start" and name in (None, r.name)]

    def names(self, saga: str | None = None) -> list[str]:
        """What was called in which order, for example `["one", "two", "undo one"]`."""
        return [record.name for record in self.calls(saga)]

    def lines(self, saga: str | None = None) -> list[str]:
        """Starts and ends of calls in their order, for example `["start one", "end one"]`."""
        return [f"{r.kind} {r.name}" for r in self.records(saga) if r.kind in ("start", "end")]

    def keys(self, saga: str | None = None, name: str | None = None) -> set[str]:
        """The keys of these calls."""
        return {record.key for record in self.calls(saga, name)}

    def effects(self, saga: str | None = None) -> list[str]:
        """The steps that have an effect which was not undone, one entry an effect."""
        done: list[str] = []
        for record in self.records(saga):
            if record.kind == "effect":
                done.append(record.step)
            elif record.kind == "undone":
                done.remove(record.step)
        return done

    def effects_ever(self, saga: str, step: str) -> int:
        """How often the step had its effect, undone or not."""
        return sum(record.kind == "effect" and record.step == step for record in self.records(saga))

    async def until(self, met: Callable[[Ledger], object], timeout_s: float = WAIT_S) -> None:
        """Wait for a condition on what is written, for example `ledger.until(lambda it: "two" in it.names())`.

        :raises TimeoutError: if it is not met in time.
        """
        async with asyncio.timeout(timeout_s):
            while not met(self):
                self._grown.clear()
                await self._grown.wait()


def now_s() -> float:
    """The clock of records: the same for all processes of a machine."""
    return time.monotonic()
