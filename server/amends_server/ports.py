"""Who listens on a port, as far as this system tells: for error messages that help."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

_LISTEN = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def who_listens(port: int) -> str:
    """Return the holder as the middle of a sentence, empty if it cannot be told (only Linux tells)."""
    inodes = {inode for table in _TABLES for inode in _inodes(Path(table), port)}
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        if inodes.intersection(_sockets(process)):
            return f"process {process.name} ({_command(process)})"
    return ""


def why_not(host: str, port: int) -> str:
    """Return why nobody can listen there, in the system's words; empty if somebody could, or somebody does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        return "" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return ""


def _inodes(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _sockets(process: Path) -> set[str]:
    try:
        links = [os.readlink(entry) for entry in (process / "fd").iterdir()]
    except OSError:  # it is somebody else's, or has ended
        return set()
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
