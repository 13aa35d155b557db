"""Orchestrators behind one small interface: in this process, or as one of their own that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from amends_server.app import serving
from amends_server.config import load_settings
from tests.acceptance.harness_ledger import WAIT_S
from tests.postgres import Database

database: Database | None = None
"""Where stores are kept when the tests run over PostgreSQL: what a test takes for a file is a schema there."""

DEFAULTS = {"lease_s": 1.0, "drain_s": 2.0}

SQLITE_ONLY = pytest.mark.skipif(
    os.environ.get("AMENDS_TEST_STORE") == "postgresql", reason="about what can happen to a file"
)

_urls: dict[Path, str] = {}

ROOT = Path(__file__).resolve().parents[2]


class Orchestrator(Protocol):
    """A real server on a store that outlives it. `address` stays the same over restarts."""

    address: str

    async def start(self) -> None:
        """Begin, or begin again on the same store and port; returns when it listens."""

    async def stop(self) -> None:
        """Have it drain and end."""

    async def restart(self) -> None:
        """Stop and start."""


class InProcess:
    """A server in the event loop of the test. `settings` are those of `load_settings`."""

    def __init__(self, store: Path | str, **settings: object) -> None:
        self.address = ""
        self.settings: dict[str, object] = {**DEFAULTS, "store": _url(store), **settings}
        self._stack: AsyncExitStack | None = None

    async def start(self) -> None:
        assert self._stack is None, "it runs already"
        settings = load_settings(listen=self.address or "127.0.0.1:0", **self.settings)
        stack = AsyncExitStack()
        server = await stack.enter_async_context(serving(settings))
        self.address, self._stack = server.address, stack

    async def stop(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


class Process:
    """`amends serve` as a process, its settings in the environment. `log` are the lines that it has logged so far."""

    def __init__(self, store: Path | str, *, program: str = "amends_server.cli", **settings: object) -> None:
        self.address = ""
        self._program = program
        self.log: list[str] = []
        self.settings: dict[str, object] = {**DEFAULTS, "store": _url(store), "log_format": "json", **settings}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._said = asyncio.Event()

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    async def start(self) -> None:
        """:raises RuntimeError: if it ends before it listens, with its log."""
        assert self._process is None, "it runs already"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._program,
            "serve",
            cwd=ROOT,
            env=os.environ | self._environment(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, listening))
        async with asyncio.timeout(WAIT_S):
            self.address = await listening

    async def stop(self) -> None:
        """SIGTERM, and wait for the end. Harmless if it does not run."""
        await self._end("terminate")

    async def kill(self) -> None:
        """SIGKILL, and wait for the end. Harmless if it does not run."""
        await self._end("kill")

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def logged(self, *words: str, timeout_s: float = WAIT_S) -> None:
        """Wait until a line of the log, of this run or an earlier one, holds all these words."""
        async with asyncio.timeout(timeout_s):
            while not any(all(word in line for word in words) for line in self.log):
                self._said.clear()
                await self._said.wait()

    async def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(timeout_s):
            await self._reading
            return await self._process.wait()

    async def _end(self, how: str) -> None:
        if self._process is None or self._reading is None:
            return
        if self._process.returncode is None:
            getattr(self._process, how)()
        async with asyncio.timeout(WAIT_S):
            await self._process.wait()
            await self._reading
        self._process = None

    def _environment(self) -> dict[str, str]:
        settings = {"listen": self.address or "127.0.0.1:0", **self.settings}
        return {f"AMENDS_{k.upper()}": v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}

    async def _read(self, process: asyncio.subprocess.Process, listening: asyncio.Future[str]) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode().rstrip())
            self._said.set()
            if not listening.done() and '"listening"' in self.log[-1]:
                listening.set_result(json.loads(self.log[-1])["address"])
        if not listening.done():
            listening.set_exception(RuntimeError("the server ended before it listened:\n" + "\n".join(self.log)))


def _url(store: Path | str) -> str:
    if isinstance(store, str):
        return store
    if database is None:
        return f"sqlite:///{store}"
    if store not in _urls:
        _urls[store] = database.new_url()
    return _urls[store]
