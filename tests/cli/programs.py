"""Real processes for the tests of the command line: `amends` itself, orchestrators, and participants beside them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import structlog
from typer.testing import CliRunner

from amends_server.cli.commands import app
from tests.sources import ROOT

AMENDS = Path(sys.executable).with_name("amends")
READY_S = 120
NOBODY = "127.0.0.1:1"
"""Where no orchestrator listens: a command that says no other place must not find one of somebody else."""
FOREIGN = [name for name in os.environ if name.startswith("AMENDS_")]
CLEAN = {name: value for name, value in os.environ.items() if name not in FOREIGN}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def amends(*arguments: str, server: str = NOBODY, stdin: str = "", **env: str) -> Ended:
    """Run a command inside of this process, as `script` does in one of its own: that takes most of a second.

    None that sets up the logs of its process: all tests after it would log to where nobody writes any more.
    """
    runner = CliRunner(env=dict.fromkeys(FOREIGN) | {"AMENDS_SERVER": server, "COLUMNS": "200"} | env)
    invoke = partial(runner.invoke, app, arguments, input=stdin, prog_name="amends")
    with patch.dict(os.environ):  # a process would forget what a command sets, there and in its context
        done = copy_context().run(invoke)
    assert not structlog.get_config()["cache_logger_on_first_use"], "run it by `script`"
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


def script(*arguments: str, server: str = NOBODY, stdin: str = "", cwd: Path | None = None, **env: str) -> Ended:
    """Run the console script until it ends."""
    done = subprocess.run(
        [str(AMENDS), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=READY_S,
        cwd=cwd,
        env=CLEAN | {"AMENDS_SERVER": server} | env,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


class Program:
    """A process that goes on, and its first lines."""

    def __init__(self, *command: str, cwd: Path = ROOT, **env: str) -> None:
        self._process = subprocess.Popen(
            command, cwd=cwd, env=CLEAN | env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        """The next line on stdout; the test's own time limit bounds the wait."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line:
            raise AssertionError(f"it ended: {self.end()}")
        return line.rstrip("\n")

    def lines_until(self, pattern: str) -> list[str]:
        """The lines up to one that matches."""
        lines = [self.line()]
        while not re.search(pattern, lines[-1]):
            lines.append(self.line())
        return lines

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals | None = None) -> Ended:
        """Wait for the end, after a signal if one is given."""
        if number is not None:
            self.signal(number)
        try:
            out, err = self._process.communicate(timeout=READY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        return Ended(self._process.returncode, out.decode(), err.decode())

    def kill(self) -> None:
        """End it if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def orchestrator(store: str, *arguments: str, listen: str = "127.0.0.1:0", **env: str) -> Iterator[tuple[Program, str]]:
    """Run `amends serve` inside the block, which gets the process and its address."""
    with program(str(AMENDS), "serve", "--listen", listen, "--store", store, "-o", "json", *arguments, **env) as run:
        yield run, json.loads(run.line())["address"]


@contextmanager
def program(*command: str, **env: str) -> Iterator[Program]:
    """Run a process inside the block."""
    running = Program(*command, **env)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def shop(orchestrator: str, folder: Path) -> Iterator[None]:
    """Run the shop inside the block."""
    command = (sys.executable, "-m", "participants.shop", "--db-dir", str(folder), "--orchestrator", orchestrator)
    with program(*command) as running:
        for _ in range(4):
            assert running.line().startswith("ready ")
        yield


@contextmanager
def troubled(orchestrator: str) -> Iterator[None]:
    """Run the participant `troubled` inside the block."""
    with program(sys.executable, "-m", "tests.cli.troubled", orchestrator) as running:
        assert running.line().startswith("ready ")
        yield
