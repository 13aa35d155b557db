"""Processes that are measured: started, asked for what they used, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

CLIENT_S_MAX = 180.0
"""How long a client may take; the slowest row takes half a minute."""

STOP_S = 40.0
"""Longer than an orchestrator takes to drain."""


class Node:
    """A process that serves. `address` is where. Ctrl-C is for the bench alone, which then ends it."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        try:
            word, _, self.address = self._process.stdout.readline().strip().partition(" ")
        except BaseException:
            self.kill()
            raise
        if word != "ready":
            self.stop()
            raise RuntimeError(f"{module} {' '.join(arguments)} did not start")

    def count(self) -> int:
        """Ask it for what it counts."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR1)
        return int(self._process.stdout.readline())

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """The CPU time that it used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """The memory that it has now."""
        return self._memory_mb("VmRSS")

    def memory_peak_mb(self) -> float:
        """The most memory that it had so far."""
        return self._memory_mb("VmHWM")

    def forget_peak(self) -> None:
        """Begin to look for the most memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")  # see proc(5)

    def _memory_mb(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(module: str, *arguments: str) -> Generator[Node, None, None]:
    """Run a process inside the block."""
    node = Node(module, *arguments)
    try:
        yield node
    finally:
        node.stop()


def output_of(module: str, *arguments: str) -> str:
    """Run a process to its end and return what it printed; one that hangs ends the measurement, not the patience."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=CLIENT_S_MAX, start_new_session=True)
    return done.stdout.decode()
