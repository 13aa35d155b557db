"""A process of the chaos: in a group of its own, behind a proxy whose address lasts over restarts, and logged."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")

START_S = 60.0
STOP_S = 15.0

_READY = re.compile(r'^ready(?: (\S+):(\d+))?|(?=.*"listening").*"address": "([^":]+):(\d+)"')
"""Of banks, of clients, and of orchestrators."""


class Node:
    """A process that can be hurt. It says when it is ready, and where it listens if it does."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.proxy = Proxy()
        self.wanted = False
        self.log = folder / f"{name}.log"
        self._command = command
        self.env = dict(env or {})
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listens: asyncio.Future[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether it has ended by itself, and not in good order."""
        return self.wanted and self._process is not None and self._process.returncode not in (None, 0)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Begin, and return when it is ready. Harmless if it runs.

        :raises RuntimeError: if it ends before.
        """
        if self.runs:
            return
        self.wanted = True
        process = self._process = await asyncio.create_subprocess_exec(
            *starter(),
            sys.executable,
            *self._command,
            cwd=ROOT,
            env=os.environ | self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._listens = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(process, self._listens))
        async with asyncio.timeout(START_S):
            await self._listens

    async def kill(self) -> None:
        """SIGKILL, and wait for the end. Harmless if it does not run."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and wait for the end; it is killed if that takes too long."""
        try:
            async with asyncio.timeout(STOP_S):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self.kill()

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait until it has ended by itself."""
        if self._process is not None and self._reading is not None:
            await self._process.wait()
            await self._reading

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def limit_files(self, size_bytes: int | None) -> None:
        """Have writes beyond that place of a file fail from now on; None for no limit."""
        if self.runs and self._process is not None:
            soft = resource.RLIM_INFINITY if size_bytes is None else size_bytes
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def _signal(self, number: int) -> None:
        if self.runs and self._process is not None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._process.pid, number)

    async def _end(self, number: int) -> None:
        self.wanted = False
        self.proxy.target = None
        self._signal(number)
        await self.ended()

    async def _read(self, process: asyncio.subprocess.Process, listens: asyncio.Future[None]) -> None:
        assert process.stdout is not None
        with self.log.open("ab") as log:
            async for line in process.stdout:
                log.write(line)
                said = _READY.search(line.decode(errors="replace"))
                if said is not None and not listens.done():
                    host, port = said[1] or said[3], said[2] or said[4]
                    self.proxy.target = (host, int(port)) if host else None
                    listens.set_result(None)
        if not listens.done():
            listens.set_exception(RuntimeError(f"{self.name} ended before it was ready: see {self.log}"))
            listens.exception()  # a kill in its first moments is no surprise to anybody


def starter(user: str = "") -> list[str]:
    """Return the beginning of a command whose program dies with this process, however that comes."""
    return [sys.executable, str(CHILD), user]
