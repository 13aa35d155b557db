"""Becomes a program that dies when whoever started it does: `python child.py USER COMMAND…`, USER a number or empty.

A process of its own does this before the program begins, since a process with threads must not run Python in a fork.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(user: str, *command: str) -> None:
    if user:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(command[0], command)  # noqa: S606 - there is nothing that a shell would do


if __name__ == "__main__":
    main(*sys.argv[1:])
