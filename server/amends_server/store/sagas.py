"""What SQLite does for sagas: plain functions on a connection, to be run whole in a transaction or a snapshot."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice

from amends_server.engine.policy import Time
from amends_server.engine.state import SagaStatus
from amends_server.store.batch import Batch, Place
from amends_server.store.bulk import execute_rows, select_rows
from amends_server.store.listing import Range, Reach, make_page, reach_of, rows_counted, wanted_statuses, ways_to_list
from amends_server.store.protocol import (
    Append,
    Birth,
    Cursor,
    NotFound,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    StoredSaga,
    StoreError,
)
from amends_server.store.queries import load_queries
from amends_server.store.rows import (
    STATUS_CODES,
    birth_columns,
    head_columns,
    labels_text,
    record_of,
    saga_of,
)
from amends_server.store.sharing import Sharing, StoredPartition

SQL = load_queries("sqlite")

TIME_MIN, TIME_MAX = -(2**63), 2**63 - 1
"""The ends of what SQLite can store."""


def commit(appends: Sequence[Append], db: sqlite3.Connection) -> list[StoreError | None]:
    """Write the batch inside a transaction; only what is not refused."""
    references = _References(appends, db)

    def read(key: SagaKey, first: int, last: int) -> list[Record]:
        return read_records(key, first, last, db)

    batch = Batch(references.place_of, read, references.defines)
    outcomes = [batch.judge(append) for append in appends]
    if batch.accepted:
        _write(batch.accepted, references, db)
    return outcomes


class _References:
    """What the store has of a batch's sagas: their short references, where their heads stand, their definitions."""

    def __init__(self, appends: Sequence[Append], db: sqlite3.Connection) -> None:
        self._db = db
        self._born: dict[SagaKey, int] = {}
        self._stored: dict[SagaKey, tuple[int, int, int]] = {}
        keys = list(dict.fromkeys(append.key for append in appends))
        wanted = [(place, key.namespace, key.saga_id) for place, key in enumerate(keys)]
        for found in select_rows(db, SQL["find_sagas"], wanted):
            self._stored.update({keys[place]: (saga, *head) for place, saga, *head in json.loads(found)})
        self._definitions = _definitions(appends, db)

    def place_of(self, key: SagaKey) -> Place:
        return self._stored[key][1:] if key in self._stored else (0, 0)

    def defines(self, namespace: str, birth: Birth) -> bool:
        return (namespace, birth.definition_digest, birth.definition_version) in self._definitions

    def give(self, born: Iterable[SagaKey]) -> None:
        """Give new references: only this connection writes, so that the next numbers are free."""
        (last,) = self._db.execute(SQL["last_saga"]).fetchone()
        self._born = {key: last + place for place, key in enumerate(born, start=1)}

    def of(self, key: SagaKey) -> int:
        return self._born[key] if key in self._born else self._stored[key][0]

    def stored(self, key: SagaKey) -> tuple[int, int]:
        return self._stored[key][:2]


def _definitions(appends: Sequence[Append], db: sqlite3.Connection) -> set[tuple[str, str, int]]:
    """Return those of the definitions that births name which are stored: namespace, digest and version."""
    births = ((append.key.namespace, append.birth.definition_digest) for append in appends if append.birth is not None)
    return {
        (namespace, digest, version)
        for found in select_rows(db, SQL["find_definitions"], list(dict.fromkeys(births)))
        for namespace, digest, version in json.loads(found)
    }


def _write(accepted: list[Append], references: _References, db: sqlite3.Connection) -> None:
    births = {append.key: append.birth for append in accepted if append.birth is not None}
    heads = {append.key: append.head for append in accepted}  # the last one of each saga
    references.give(births)
    execute_rows(
        db,
        SQL["insert_sagas"],
        [(references.of(key), *birth_columns(key, birth), *head_columns(heads[key])) for key, birth in births.items()],
    )
    execute_rows(
        db,
        SQL["insert_labels"],
        [
            (key.namespace, name, value, birth.create_time, references.of(key))
            for key, birth in births.items()
            for name, value in birth.labels.items()
        ],
    )
    execute_rows(
        db,
        SQL["insert_events"],
        [
            (references.of(append.key), record.sequence, record.kind, record.body)
            for append in accepted
            for record in append.records
        ],
    )
    moves = [(*head_columns(head), *references.stored(key)) for key, head in heads.items() if key not in births]
    moved = execute_rows(db, SQL["update_heads"], moves)
    assert moved == len(moves), f"{moved} of {len(moves)} heads moved, though nobody else writes"


def get_saga(key: SagaKey, db: sqlite3.Connection) -> StoredSaga:
    """Return a row. :raises NotFound:"""
    row = db.execute(SQL["select_saga"] + SQL["of_key"], (key.namespace, key.saga_id)).fetchone()
    if row is None:
        raise NotFound(f"There is no saga {key.saga_id!r} in namespace {key.namespace!r}.")
    return saga_of(row)


def read_records(key: SagaKey, first: int, last: int, db: sqlite3.Connection) -> list[Record]:
    """Return the records from one sequence to another, both included."""
    rows = db.execute(SQL["read_events"], (key.namespace, key.saga_id, first, last))
    return [record_of(row) for row in rows]


def list_due(until: Time, after: tuple[Time, SagaKey] | None, limit: int, db: sqlite3.Connection) -> list[StoredSaga]:
    """Return rows by due time and key."""
    since, key = after or (TIME_MIN, SagaKey("", ""))
    where = {
        "since": since, "until": until, "namespace": key.namespace, "saga_id": key.saga_id, "limit": limit
    }  # fmt: skip
    return [saga_of(row) for row in db.execute(SQL["select_saga"] + SQL["by_due_time"], where)]


def sharing(now: Time, db: sqlite3.Connection) -> Sharing:
    """Return what is due; there is one owner."""
    epoch, due_count, oldest = db.execute(SQL["due"], {"now": now}).fetchone()
    return Sharing((), (StoredPartition(number=0, epoch=epoch, due_count=due_count, oldest_due_time=oldest),))


def list_unfinished(after: SagaKey | None, limit: int, db: sqlite3.Connection) -> list[StoredSaga]:
    """Return rows by key."""
    key = after or SagaKey("", "")
    where = {"namespace": key.namespace, "saga_id": key.saga_id, "limit": limit}
    return [saga_of(row) for row in db.execute(SQL["select_saga"] + SQL["unfinished"], where)]


def list_sagas(where: SagaFilter, after: Cursor | None, limit: int, db: sqlite3.Connection) -> SagaPage:
    """Return rows, newest first, then by id.

    An index by status is in order for one status, so several of them are merged.
    """
    statuses = wanted_statuses(where)
    if statuses is None:
        return SagaPage([], None)
    conditions = _conditions(where, statuses, after, limit)
    ways = ways_to_list(where, statuses)
    reaches = [_reach(way, conditions, limit, db) for way in ways]
    reach, way = min(zip(reaches, ways, strict=True), key=lambda pair: pair[0].merit)
    if reach.since is not None:
        conditions["since"] = reach.since
    found = merge(*(_rows(part, conditions, db) for part in way), key=_place)
    return make_page(list(islice(found, limit + 1)), limit, reach)


def _conditions(
    where: SagaFilter, statuses: frozenset[SagaStatus], after: Cursor | None, limit: int
) -> dict[str, object]:
    after = after or Cursor(TIME_MAX, "")
    before = TIME_MAX if where.created_before is None else where.created_before - 1
    return {
        "namespace": where.namespace,
        "statuses": json.dumps([STATUS_CODES[status] for status in statuses]) if statuses else None,
        "definition_name": where.definition_name,
        "definition_version": where.definition_version,
        "labels": labels_text(where.labels),
        "since": TIME_MIN if where.created_after is None else where.created_after,
        "until": min(before, after.create_time),
        "after_time": after.create_time,
        "after_id": after.saga_id,
        "limit": limit + 1,
    }


def _reach(way: Sequence[Range], conditions: dict[str, object], limit: int, db: sqlite3.Connection) -> Reach:
    counted = rows_counted(way, limit)
    counts = [
        db.execute(SQL[f"reach_{part.index}"], {**conditions, **part.values, "counted": counted}).fetchone()
        for part in way
    ]
    return reach_of(counts, counted)


def _rows(part: Range, conditions: dict[str, object], db: sqlite3.Connection) -> Iterator[StoredSaga]:
    """Read as far as is asked for, and no further."""
    statement = SQL["select_saga"] + SQL[part.index] + SQL["matching"]
    return map(saga_of, db.execute(statement, {**conditions, **part.values}))


def _place(saga: StoredSaga) -> tuple[int, str]:
    return -saga.birth.create_time, saga.key.saga_id
