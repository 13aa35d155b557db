"""The processes of the demo: an orchestrator and a shop, as they would be run by hand."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import amends_server
from amends_server.cli.exits import CommandError
from amends_server.cli.options import ADDRESS

READY_S = 60.0
"""How long a process may take to be ready, on a machine that is slow or busy."""

STOP_S = 15.0
"""How long a process may take to end before it is killed."""

LOG_LINES = 15
"""Of the log of a process that did not start: what it said last."""

SERVICES = ("validation", "inventory", "payment", "shipping")
"""What the shop says that it serves."""


@dataclass(frozen=True, slots=True)
class Running:
    """The processes run. `orchestrator` is its address; the ledgers are `ledgers/NAME.db`."""

    orchestrator: str
    participants: dict[str, str]
    ledgers: Path
    store: Path


def clone() -> Path:
    """The root of the repository that this package is in.

    :raises CommandError: if it is installed without one.
    """
    root = Path(amends_server.__file__).resolve().parents[2]
    if not (root / "participants" / "shop" / "__main__.py").is_file():
        raise CommandError(
            f"The demo needs a clone of the repository, whose folder participants/ holds the shop; {root} has none. "
            "Clone it and run `make demo` there."
        )
    return root


@asynccontextmanager
async def running(folder: Path, listen: str) -> AsyncGenerator[Running, None]:
    """Run the orchestrator and the shop inside the block, with their files in the folder."""
    root, store, ledgers = clone(), folder / "amends.db", folder / "shop"
    serve = ["amends_server.cli", "serve", "--listen", listen, "--store", f"sqlite:///{store}", "-o", "json"]
    async with _process(serve, root, folder / "orchestrator.log") as (_, lines):
        address = str(json.loads(await lines(1))["address"])
        shop = ["participants.shop", "--db-dir", str(ledgers), "--orchestrator", address]
        async with _process(shop, root, folder / "shop.log") as (_, lines):
            ready = [line.split() for line in (await lines(len(SERVICES))).splitlines()]
            yield Running(address, {name: at for _, name, at in ready}, ledgers, store)


def free_address() -> str:
    """Where an orchestrator listens by default, or a free port if somebody has that one."""
    host, _, port = ADDRESS.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed just now is free
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return ADDRESS


class _Lines:
    """Reads what a process prints first."""

    def __init__(self, process: Process, name: str, log: Path) -> None:
        self._process, self._name, self._log = process, name, log

    async def __call__(self, count: int) -> str:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                lines = [await self._process.stdout.readline() for _ in range(count)]
        except TimeoutError:
            raise self._failed(f"was not ready within {READY_S:.0f} s") from None
        if not all(lines):
            raise self._failed("ended at once")
        return b"".join(lines).decode()

    def _failed(self, what: str) -> CommandError:
        said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return CommandError("\n".join([f"The demo's process {self._name} {what}. It said:", *said]))


@asynccontextmanager
async def _process(module: Sequence[str], root: Path, log: Path) -> AsyncGenerator[tuple[Process, _Lines], None]:
    """Run `python -m MODULE …` inside the block, and end it in good order."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *module,
            cwd=root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends its processes one after another
        )
    try:
        yield process, _Lines(process, module[0], log)
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
