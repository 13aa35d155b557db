"""The store that forgets: for tests and for trying things out. It does what the others do, in plain dictionaries."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from amends_server.engine.policy import Time
from amends_server.engine.state import FINAL
from amends_server.store.batch import Batch, Place
from amends_server.store.incarnation import epoch_before_next
from amends_server.store.leases import Sole
from amends_server.store.listing import WHOLE, make_page
from amends_server.store.migration import Migration
from amends_server.store.protocol import (
    SECRET_BYTES,
    Append,
    Birth,
    Cursor,
    Head,
    InUse,
    NotFound,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
    StoreError,
    Unavailable,
)
from amends_server.store.sharing import Sharing, StoredPartition

T = TypeVar("T")


@dataclass(slots=True)
class _Saga:
    birth: Birth
    head: Head
    records: list[Record]


class MemoryStore:
    """Keeps everything as long as the object lives, also over close and open. See Store for the methods."""

    def __init__(self) -> None:
        self._open = False
        self._epoch = 0
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._sagas: dict[SagaKey, _Saga] = {}
        self._definitions: dict[tuple[str, str], StoredDefinition] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._participants: dict[str, StoredParticipant] = {}

    async def pending(self) -> list[Migration]:
        """Return the migrations that `open` would make: none."""
        return []

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def check(self) -> None:
        self._use()

    async def own(self) -> Sole:
        return Sole(await self.next_epoch())

    async def begin_incarnation(self, now: Time) -> int:
        self._epoch = epoch_before_next(self._epoch, now)
        return self._epoch

    async def next_epoch(self) -> int:
        """Count up and return the epoch of the process that owns the store. It only grows."""
        self._use()
        self._epoch += 1
        return self._epoch

    async def secret(self) -> bytes:
        self._use()
        return self._secret

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        self._use()
        batch = Batch(self._place_of, self._read, self._defines)
        outcomes = [batch.judge(append) for append in appends]
        for append in batch.accepted:
            self._write(append)
        return outcomes

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        self._use()
        saga = self._sagas.get(key)
        if saga is None:
            raise NotFound(f"There is no saga {key.saga_id!r} in namespace {key.namespace!r}.")
        return StoredSaga(key=key, birth=saga.birth, head=saga.head)

    async def read_records(self, key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        self._use()
        return list(self._read(key, after_sequence + 1, after_sequence + limit))

    async def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> SagaPage:
        def place(saga: StoredSaga) -> tuple[int, str]:
            return -saga.birth.create_time, saga.key.saga_id

        start = None if after is None else (-after.create_time, after.saga_id)
        found = _page((saga for saga in self._rows() if _matches(saga, where)), place, start, limit + 1)
        return make_page(found, limit, WHOLE)

    async def list_due(
        self, until: Time, after: tuple[Time, SagaKey] | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        assert within is None, "there are no partitions"

        def place(saga: StoredSaga) -> tuple[Time, str, str]:
            return saga.head.due_time or 0, saga.key.namespace, saga.key.saga_id

        start = None if after is None else (after[0], after[1].namespace, after[1].saga_id)
        due = (saga for saga in self._rows() if saga.head.due_time is not None and saga.head.due_time <= until)
        return _page(due, place, start, limit)

    async def sharing(self, now: Time) -> Sharing:
        due = [due_time for row in self._rows() if (due_time := row.head.due_time) is not None and due_time <= now]
        whole = StoredPartition(number=0, epoch=self._epoch, due_count=len(due), oldest_due_time=min(due, default=None))
        return Sharing((), (whole,))

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        assert within is None, "there are no partitions"

        def place(saga: StoredSaga) -> tuple[str, str]:
            return saga.key.namespace, saga.key.saga_id

        start = None if after is None else (after.namespace, after.saga_id)
        return _page((saga for saga in self._rows() if saga.head.end_time is None), place, start, limit)

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        self._use()
        stored = self._definitions.get((definition.namespace, definition.digest))
        if stored is not None:
            return stored, False
        name = definition.namespace, definition.name
        version = self._versions[name] = self._versions.get(name, 0) + 1
        new = self._definitions[definition.namespace, definition.digest] = replace(definition, version=version)
        return new, True

    async def get_definition(
        self, namespace: str, *, name: str = "", version: int = 0, digest: str = ""
    ) -> StoredDefinition:
        if digest:
            found = [d for d in self._all_definitions(namespace, "") if d.digest == digest]
        else:
            found = [d for d in self._all_definitions(namespace, name) if name and version in (0, d.version)]
        if not found:
            raise NotFound(f"There is no such definition in namespace {namespace!r}.")
        return max(found, key=lambda definition: definition.version)

    async def list_definitions(
        self, namespace: str, name: str, after: tuple[str, int] | None, limit: int
    ) -> list[StoredDefinition]:
        def place(definition: StoredDefinition) -> tuple[str, int]:
            return definition.name, -definition.version

        start = None if after is None else (after[0], -after[1])
        return _page(self._all_definitions(namespace, name), place, start, limit)

    async def delete_definition(self, namespace: str, digest: str) -> None:
        self._use()
        definition = await self.get_definition(namespace, digest=digest)
        where = SagaFilter(namespace=namespace, definition_name=definition.name, definition_version=definition.version)
        if any(_matches(saga, where) for saga in self._rows()):
            raise InUse("Sagas of this definition are stored.")
        del self._definitions[namespace, digest]

    async def put_participant(self, participant: StoredParticipant) -> None:
        self._use()
        self._participants[participant.name] = participant

    async def list_participants(self) -> list[StoredParticipant]:
        self._use()
        return [self._participants[name] for name in sorted(self._participants)]

    async def delete_participant(self, name: str) -> None:
        self._use()
        if self._participants.pop(name, None) is None:
            raise NotFound(f"There is no participant {name!r}.")

    def _use(self) -> None:
        if not self._open:
            raise Unavailable("The store is closed.")

    def _place_of(self, key: SagaKey) -> Place:
        saga = self._sagas.get(key)
        return (0, 0) if saga is None else (saga.head.sequence, saga.head.epoch)

    def _defines(self, namespace: str, birth: Birth) -> bool:
        definition = self._definitions.get((namespace, birth.definition_digest))
        return definition is not None and definition.version == birth.definition_version

    def _read(self, key: SagaKey, first: int, last: int) -> Sequence[Record]:
        saga = self._sagas.get(key)
        return () if saga is None else saga.records[max(first, 1) - 1 : last]

    def _write(self, append: Append) -> None:
        if append.birth is not None:
            self._sagas[append.key] = _Saga(append.birth, append.head, [])
        saga = self._sagas[append.key]
        saga.head = append.head
        saga.records.extend(append.records)

    def _rows(self) -> list[StoredSaga]:
        self._use()
        return [StoredSaga(key=key, birth=saga.birth, head=saga.head) for key, saga in self._sagas.items()]

    def _all_definitions(self, namespace: str, name: str) -> list[StoredDefinition]:
        self._use()
        return [d for d in self._definitions.values() if d.namespace == namespace and name in ("", d.name)]


def _page(
    rows: Iterable[T], place: Callable[[T], tuple[object, ...]], start: tuple[object, ...] | None, limit: int
) -> list[T]:
    """Return the first rows after the start, in the order of their places."""
    return sorted((row for row in rows if start is None or place(row) > start), key=place)[:limit]


def _matches(saga: StoredSaga, where: SagaFilter) -> bool:
    birth, head = saga.birth, saga.head
    return (
        saga.key.namespace == where.namespace
        and (not where.statuses or head.status in where.statuses)
        and where.definition_name in ("", birth.definition_name)
        and where.definition_version in (0, birth.definition_version)
        and where.labels.items() <= birth.labels.items()
        and (where.created_after is None or where.created_after <= birth.create_time)
        and (where.created_before is None or birth.create_time < where.created_before)
        and not (where.unfinished_only and head.status in FINAL)
    )
