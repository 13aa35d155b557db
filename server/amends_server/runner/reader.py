"""Reads a saga's journal from the store and folds it."""

from __future__ import annotations

from amends_server.catalogue import Catalogue, Entry
from amends_server.codec import decode
from amends_server.engine.evolve import fold
from amends_server.engine.state import State
from amends_server.engine.value import dataclass
from amends_server.errors import SagaHalted
from amends_server.store.protocol import Birth, NotFound, Record, SagaKey, Store, StoredSaga

RECORDS_PAGE = 1_000
"""Records read at a time, so that nobody else waits for a reader long."""


@dataclass(frozen=True, slots=True)
class View:
    """A saga as it durably stands."""

    key: SagaKey
    birth: Birth
    state: State


class Reader:
    """Reads sagas without taking them into memory."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def read(self, key: SagaKey) -> tuple[StoredSaga, Entry, State]:
        """Return a saga's row, its definition, and the state that its journal adds up to.

        :raises amends_server.store.protocol.NotFound: if there is no such saga.
        :raises amends_server.errors.CorruptRecord: if a record cannot be read.
        :raises amends_server.errors.SagaHalted: if its definition is not there.
        """
        row = await self._store.get_saga(key)
        try:
            entry = await self._catalogue.find(key.namespace, digest=row.birth.definition_digest)
        except NotFound:  # it must not be taken for a saga that is not there
            raise SagaHalted(key.namespace, key.saga_id, "its definition is not stored") from None
        records = await self._records(key, row.head.sequence)
        return row, entry, fold(entry.graph, [decode(key, record) for record in records])

    async def _records(self, key: SagaKey, count: int) -> list[Record]:
        """Read as many records as the row tells of: later ones may be those of another owner, in a later epoch."""
        records: list[Record] = []
        while len(records) < count:
            page = await self._store.read_records(key, len(records), min(RECORDS_PAGE, count - len(records)))
            if not page:
                break
            records += page
        return records
