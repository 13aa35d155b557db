"""Where and when figures were taken: they mean nothing without."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """`commit` is that of the repository this package is in, `(modified)` if there are changes besides; without a
    repository, the version of the package. `load` is the load average of the last minute when it began: on a machine
    that has other work, rates and latencies are noise.
    """

    date: str
    commit: str
    machine: str
    load: float


def take() -> Taken:
    """Look around."""
    return Taken(
        date=datetime.now(UTC).date().isoformat(),
        commit=_commit() or f"version {version('amends')}",
        machine=", ".join([
            f"{os.cpu_count()} cores ({_processor()})",
            f"{_memory_gb():.0f} GB",
            f"Python {platform.python_version()}",
            f"grpcio {grpc.__version__}",
            f"SQLite {sqlite3.sqlite_version}",
            _loop(),
        ]),
        load=round(os.getloadavg()[0], 1),
    )  # fmt: skip


def _loop() -> str:
    """What orchestrator and participant run on; clients and the floor have the loop of asyncio."""
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "without uvloop"


def _commit() -> str:
    folder = Path(__file__).resolve().parent
    if not (folder.parents[2] / "proto" / "amends").is_dir():
        return ""  # installed: a repository further up is another one's
    described = ["git", "describe", "--always", "--abbrev=8", "--exclude=*", "--dirty= (modified)"]
    done = subprocess.run(described, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float:
    (line,) = [line for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")]
    return int(line.split()[1]) / (1 << 20)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()
