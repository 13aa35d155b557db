"""What an orchestrator writes in its life, done on a disk that forgets: births, events, ends, checkpoints, reopening.

The statements, the schema and the PRAGMAs are the store's own; only the thread around its connection is left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from amends_server.engine.state import SagaStatus
from amends_server.store import registry, sagas
from amends_server.store.connection import _prepare_writer, transact
from amends_server.store.protocol import Append, SagaKey
from tests.power.forgetful import ForgetfulDisk
from tests.store.make import append, birth, definition, key, records

T = TypeVar("T")

PATH = Path("/amends.db")
SAGAS = 12
EVENT_BYTES = 900
"""So that batches have several pages."""

_NUMBERS = count(1)


class PowerConnection:
    """An APSW connection with as much of sqlite3's interface as the store uses."""

    def __init__(self, disk: ForgetfulDisk) -> None:
        self._db = apsw.Connection(str(PATH), vfs=disk.name)
        self._db.execute("pragma locking_mode = exclusive")

    def execute(self, sql: str, values: Any = ()) -> apsw.Cursor:
        return self._db.execute(sql, values)

    @property
    def total_changes(self) -> int:
        return self._db.total_changes()

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        self._db.close()


class Workload:
    """Runs once. `acknowledged` are appends with the number of operations after which they were.

    A careless one does without the syncs that the store asks for.
    """

    def __init__(self, *, careless: bool = False) -> None:
        self.disk = ForgetfulDisk(f"forgetful{next(_NUMBERS)}")
        self.acknowledged: list[tuple[int, Append]] = []
        self.written: dict[SagaKey, list[Append]] = {}
        self._careless = careless
        self._open()
        self._run()
        self._db.close()
        self.disk.unregister()

    def _open(self) -> None:
        self._db = PowerConnection(self.disk)
        _prepare_writer(PATH, self._sqlite3, in_doubt=False)
        if self._careless:
            self._db.execute("pragma synchronous = normal")

    @property
    def _sqlite3(self) -> sqlite3.Connection:
        return cast(sqlite3.Connection, self._db)

    def _run(self) -> None:
        self._transact(partial(registry.put_definition, definition(content="1")))
        for number in range(SAGAS):
            self._commit([self._start(number)])
            if number >= 2:
                self._commit([self._event(number - 1), self._event(number - 2)])
            if number == SAGAS // 3:
                self._db.execute("pragma wal_checkpoint(full)").fetchall()  # the log begins anew with the next commit
            if number == SAGAS // 2:
                self._db.close()
                self._open()
            if number > SAGAS // 2:
                self._commit([self._end(number - SAGAS // 2)])
        self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._commit([self._event(SAGAS - 1)])

    def _start(self, number: int) -> Append:
        born = birth(definition=("order", 1), labels={"customer": str(number)})
        return self._note(append(self._key(number), records(1, 2, self._body(number)), born=born, due=number))

    def _event(self, number: int) -> Append:
        written = self.written[self._key(number)]
        first = written[-1].records[-1].sequence + 1
        return self._note(append(self._key(number), records(first, 3, self._body(number))))

    def _end(self, number: int) -> Append:
        first = self.written[self._key(number)][-1].records[-1].sequence + 1
        return self._note(append(self._key(number), records(first), status=SagaStatus.COMPLETED))

    def _note(self, new: Append) -> Append:
        self.written.setdefault(new.key, []).append(new)
        return new

    def _commit(self, appends: list[Append]) -> None:
        outcomes = self._transact(partial(sagas.commit, appends))
        assert outcomes == [None] * len(appends), outcomes
        done = len(self.disk.operations)
        self.acknowledged += [(done, each) for each in appends]

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return transact(work, self._sqlite3)

    def _key(self, number: int) -> SagaKey:
        return key(f"saga-{number}")

    def _body(self, number: int) -> bytes:
        return bytes([number]) * EVENT_BYTES
