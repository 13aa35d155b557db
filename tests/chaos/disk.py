"""Small file systems in memory that can be made full; seen by this process and its children only."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
ROOM = "256m"
ATTEMPTS_MAX = 20


class CannotMount(Exception):
    """File systems cannot be mounted here. The text says why."""


class Disk:
    """A file system of its own at a folder. It goes when the last process ends that sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "amends-chaos", str(folder))

    def fill(self) -> None:
        """Leave no room for more than there is."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            seen = os.statvfs(self.folder)
            used = (seen.f_blocks - seen.f_bfree) * seen.f_frsize
            try:
                return _run("mount", "-o", f"remount,size={max(used, seen.f_frsize)}", str(self.folder))
            except CannotMount:  # more was written meanwhile, than which it cannot be smaller
                if attempt == ATTEMPTS_MAX:
                    raise

    def free(self) -> None:
        """Have room again."""
        _run("mount", "-o", f"remount,size={ROOM}", str(self.folder))

    def close(self) -> None:
        """Take it away, with all that is on it."""
        _run("umount", "-l", str(self.folder))


def have_own_mounts() -> None:
    """From now on keep what is mounted here to this process and its children.

    :raises CannotMount: if that takes rights that this user does not have.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise CannotMount(f"unshare: {os.strerror(ctypes.get_errno())}")
    _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotMount(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise CannotMount(f"{' '.join(command)}: {done.stderr.strip()}")
