"""A disk that forgets, at a power failure, what was not synced: a file system for SQLite that lives in memory.

It notes every change and every sync. `after(n)` is what may be left when the power fails after n of them: all that was
synced, and of the rest nothing, everything, or any part, with the last write torn.

SQLite has no shared memory on it, so it has to lock exclusively; the log and its syncs are the same then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import apsw

SECTOR_BYTES = 512
"""What a disk writes whole."""

_POWERSAFE_OVERWRITE = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE
"""As SQLite takes it for Unix: a torn write changes nothing beside it."""


@dataclass(frozen=True)
class Write:
    name: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    name: str
    size: int


@dataclass(frozen=True)
class Sync:
    name: str


@dataclass(frozen=True)
class Delete:
    name: str


Operation = Write | Truncate | Sync | Delete


@dataclass
class _Durable:
    """What a file holds for sure, and what was done to it since."""

    data: bytearray | None = None
    pending: list[Write | Truncate | Delete] = field(default_factory=list[Write | Truncate | Delete])


class ForgetfulDisk(apsw.VFS):
    """Files by their names, and the operations on them in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, bytearray] = {}
        self.operations: list[Operation] = []
        super().__init__(name, base="", exclude={"xSetSystemCall", "xGetSystemCall", "xNextSystemCall"})

    def xOpen(self, name: object, flags: list[int]) -> _File:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        self.files.setdefault(path, bytearray())
        return _File(self, path)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if filename not in self.files:
            raise apsw.IOError
        del self.files[filename]
        self.operations.append(Delete(filename))
        if syncdir:
            self.operations.append(Sync(filename))

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.files

    def xFullPathname(self, name: str) -> str:
        return name

    def after(self, count: int, luck: Random | None, *, everything: bool = False) -> dict[str, bytes]:
        """Return the files as they may be found when the power failed after so many operations.

        Without luck nothing is left of what was not synced, or `everything`; with it any part.
        """
        durable: dict[str, _Durable] = {}
        for operation in self.operations[:count]:
            file = durable.setdefault(operation.name, _Durable())
            if isinstance(operation, Sync):
                if file.data is None and operation.name.endswith(("-wal", "-journal")):
                    _sync_folder(durable)
                file.data, file.pending = _applied(file.data, file.pending), []
            else:
                file.pending.append(operation)
        found = {
            name: _applied(file.data, list(_survivors(file.pending, luck, everything=everything)))
            for name, file in durable.items()
        }
        return {name: bytes(data) for name, data in found.items() if data is not None}


class _File:
    """An open file. Locks are for nobody: there is one connection."""

    def __init__(self, disk: ForgetfulDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._data = disk.files[path]

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        _write(self._data, offset, data)
        self._disk.operations.append(Write(self._path, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        del self._data[newsize:]
        self._disk.operations.append(Truncate(self._path, newsize))

    def xSync(self, flags: int) -> None:
        self._disk.operations.append(Sync(self._path))

    def xFileSize(self) -> int:
        return len(self._data)

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xCheckReservedLock(self) -> bool:
        return False

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return _POWERSAFE_OVERWRITE

    def xClose(self) -> None:
        pass


def _sync_folder(files: dict[str, _Durable]) -> None:
    """Make removals durable: SQLite on Unix syncs the folder with the first sync of a log or journal that it made."""
    for file in files.values():
        removed = [place for place, operation in enumerate(file.pending) if isinstance(operation, Delete)]
        if removed:
            file.data, file.pending = None, file.pending[removed[-1] + 1 :]


def _survivors(
    pending: list[Write | Truncate | Delete], luck: Random | None, *, everything: bool
) -> Iterator[Write | Truncate | Delete]:
    """Choose what of the unsynced operations has got to the disk; it writes them in any order."""
    for operation in pending:
        if luck is None:
            if everything:
                yield operation
            continue
        fate = luck.random()
        if fate < 0.5:
            yield operation
        elif fate < 0.65 and isinstance(operation, Write) and len(operation.data) > SECTOR_BYTES:
            sectors = luck.randrange(1, len(operation.data) // SECTOR_BYTES + 1)
            yield Write(operation.name, operation.offset, operation.data[: sectors * SECTOR_BYTES])


def _applied(data: bytearray | None, operations: list[Write | Truncate | Delete]) -> bytearray | None:
    changed = None if data is None else bytearray(data)
    for operation in operations:
        match operation:
            case Write():
                changed = bytearray() if changed is None else changed
                _write(changed, operation.offset, operation.data)
            case Truncate():
                changed = bytearray() if changed is None else changed
                del changed[operation.size :]
            case Delete():
                changed = None
    return changed


def _write(data: bytearray, offset: int, new: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(new)] = new
