"""A participant whose calls wait, or fail, until a file says otherwise: `python -m tests.cli.troubled ORCHESTRATOR`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from amends import Call, Participant, Refused, run


@dataclass(frozen=True, slots=True)
class Gate:
    """`path` is the file that opens it."""

    path: str


participant = Participant("troubled")


@participant.action
async def hang(request: Gate, call: Call) -> str:
    """Answer once the gate is open."""
    while not Path(request.path).exists():  # noqa: ASYNC110 – the gate is a file, which nobody announces
        await asyncio.sleep(0.01)
    return "through"


@hang.compensation
async def unhang(request: Gate, done: str | None, call: Call) -> None:
    return None


@participant.action
async def hold(request: Gate, call: Call) -> str:
    return "held"


@hold.compensation
async def let_go(request: Gate, done: str | None, call: Call) -> None:
    """Fail as long as the gate is closed."""
    if not Path(request.path).exists():
        raise Refused("JAMMED", "it cannot be let go")


@participant.action
async def refuse(request: Gate, call: Call) -> str:
    raise Refused("NO", "never")


@participant.action
async def dawdle(request: Gate, call: Call) -> str:
    """Leave the outcome to whoever finds the token in the file, which appears whole."""
    part = Path(request.path).with_suffix(".part")
    part.write_text(call.completion_token, encoding="utf-8")
    part.rename(request.path)
    call.later()


@dawdle.compensation
async def undawdle(request: Gate, done: str | None, call: Call) -> None:
    return None


@participant.action
async def vanish(request: Gate, call: Call) -> str:
    """Leave nobody knowing what happened, as long as the gate is closed."""
    if not Path(request.path).exists():
        raise ConnectionError("gone")
    return "through"


if __name__ == "__main__":
    run(participant, orchestrator=sys.argv[1])
