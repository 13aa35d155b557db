"""The lock file that keeps a second orchestrator from a database file."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from amends_server.store.protocol import StoreLocked, Unavailable

_NOTE_BYTES_MAX = 1_000
"""Far more than a note has; the file may have been written by anything."""


class LockFile:
    """A file that is locked as long as this object holds it; the kernel lets go of it when the process dies.

    The file stays when it is let go of: to remove it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def hold(self, note: str) -> None:
        """Lock the file and write into it who does.

        :raises StoreLocked: with the note of the one who holds it.
        """
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise Unavailable(
                f"The lock file {self._path} cannot be opened ({error.strerror}): choose another store, or "
                "let this user write it."
            ) from error
        try:
            self._lock(file)
            os.truncate(file, 0)
            os.write(file, note.encode())
        except OSError as error:
            os.close(file)
            raise Unavailable(
                f"The file {self._path} cannot be locked ({error.strerror}): choose a store on a disk that knows locks."
            ) from error
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def release(self) -> None:
        """Let go of the file. Harmless when repeated."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, _NOTE_BYTES_MAX, 0).decode(errors="replace").strip() or "another process"
            since = datetime.fromtimestamp(os.fstat(file).st_mtime, UTC).isoformat(" ", "seconds")
            raise StoreLocked(f"{self._path.with_suffix('')} is in use by {holder} since {since}.") from None
