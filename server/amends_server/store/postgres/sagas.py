"""What PostgreSQL does for sagas: a batch in few statements, whatever its size, and listings that read one index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from amends_server.engine.policy import Time
from amends_server.engine.state import SagaStatus
from amends_server.store.batch import Batch, Place
from amends_server.store.listing import Range, Reach, make_page, reach_of, rows_counted, wanted_statuses, ways_to_list
from amends_server.store.partition import partition_of
from amends_server.store.postgres.statements import Db, fetch, texts
from amends_server.store.protocol import (
    Append,
    Birth,
    Cursor,
    NotFound,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    Stale,
    StoredSaga,
    StoreError,
)
from amends_server.store.rows import (
    STATUS_CODES,
    Row,
    birth_columns,
    head_columns,
    labels_text,
    record_of,
    saga_of,
)

TIME_MIN, TIME_MAX = -(2**63), 2**63 - 1
"""The ends of what the columns can store."""

COMMIT = texts(("find_sagas",), ("find_definitions",), ("read_events",), ("insert_sagas",), ("move_sagas",))
"""What `commit` runs."""

_HEAD = ("sequences", "epochs", "statuses", "pauses", "due_times", "update_times", "end_times")
_BIRTH = (
    *("namespaces", "saga_ids", "definition_names", "definition_versions", "definition_digests", "fingerprints"),
    *("create_times", "deadlines", "labels", *_HEAD, "partitions"),
)
_LABELS = ("label_namespaces", "label_saga_ids", "label_names", "label_values")
_FIRST_EVENTS = ("event_namespaces", "event_saga_ids", "event_sequences", "kinds", "bodies")
_MOVES = (*_HEAD, "sagas", "old_sequences")
_DEFINITIONS = ("namespaces", "digests")
_EVENTS = ("event_sagas", "event_sequences", "kinds", "bodies")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is stored of a saga before the batch: `owner_epoch` is its partition's, `saga` None if there is none."""

    owner_epoch: int
    saga: int | None
    place: Place


async def commit(appends: Sequence[Append], partitions: int, db: Db) -> list[StoreError | None]:
    """Write the batch inside a transaction; only what is not refused."""
    found = await _find([*dict.fromkeys(append.key for append in appends)], partitions, db)
    stored = await _read_repeated(appends, found, db)

    def read(key: SagaKey, first: int, last: int) -> list[Record]:
        return [record for record in stored[key] if first <= record.sequence <= last]

    def defines(namespace: str, birth: Birth) -> bool:
        return (namespace, birth.definition_digest, birth.definition_version) in definitions

    definitions = await _find_definitions(appends, db)
    batch = Batch(lambda key: found[key].place, read, defines)
    outcomes = [_judge(append, found[append.key], batch) for append in appends]
    births = [append for append in batch.accepted if found[append.key].saga is None]
    moves = [append for append in batch.accepted if found[append.key].saga is not None]
    if births:
        await _insert(births, partitions, db)
    if moves:
        await _move(moves, found, db)
    return outcomes


async def settle(partitions: Collection[int], db: Db) -> None:
    """Wait for every transaction that writes sagas of these partitions, and for the standby that has to have them."""
    await fetch(db, "settle", partitions=sorted(partitions))


def _judge(append: Append, found: _Found, batch: Batch) -> StoreError | None:
    if found.owner_epoch and append.head.epoch != found.owner_epoch:  # 0: nobody has owned it yet
        return Stale(f"Another orchestrator owns saga {append.key.saga_id!r} now, in epoch {found.owner_epoch}.")
    return batch.judge(append)


async def _find(keys: list[SagaKey], partitions: int, db: Db) -> dict[SagaKey, _Found]:
    """Lock the partitions of the sagas against a change of their owner, and look the sagas up."""
    places = [partition_of(key, partitions) for key in keys]
    rows = await fetch(
        db,
        "find_sagas",
        partitions=sorted(set(places)),
        namespaces=[key.namespace for key in keys],
        saga_ids=[key.saga_id for key in keys],
        places=range(len(keys)),
        partition_of=places,
    )
    return {
        keys[place]: _Found(owner_epoch, saga, (sequence or 0, epoch or 0))
        for place, owner_epoch, saga, sequence, epoch in rows
    }


async def _find_definitions(appends: Sequence[Append], db: Db) -> set[tuple[str, str, int]]:
    """Keep the definitions that births name from being removed, and return those that are stored."""
    wanted = {(append.key.namespace, append.birth.definition_digest) for append in appends if append.birth is not None}
    if not wanted:
        return set()
    return {tuple(row) for row in await fetch(db, "find_definitions", **_columns(_DEFINITIONS, sorted(wanted)))}


async def _read_repeated(
    appends: Sequence[Append], found: dict[SagaKey, _Found], db: Db
) -> dict[SagaKey, list[Record]]:  # fmt: skip
    """Read what is stored in the places of appends that come again, to be compared with them."""
    first: dict[SagaKey, int] = {}
    for append in appends:
        sequence = append.records[0].sequence
        if sequence <= found[append.key].place[0]:
            first[append.key] = min(sequence, first.get(append.key, sequence))
    return {key: await read_records(key, since, found[key].place[0], db) for key, since in first.items()}


async def _insert(births: list[Append], partitions: int, db: Db) -> None:
    """Write new sagas, with all that the batch has of their journals."""
    heads = {append.key: append.head for append in births}  # the last one of each saga
    born = {append.key: append.birth for append in births if append.birth is not None}
    rows = [
        (*birth_columns(key, birth), *head_columns(heads[key]), partition_of(key, partitions))
        for key, birth in born.items()
    ]
    labels = [(key.namespace, key.saga_id, *label) for key, birth in born.items() for label in birth.labels.items()]
    events = [
        (append.key.namespace, append.key.saga_id, record.sequence, record.kind, record.body)
        for append in births
        for record in append.records
    ]
    columns = _columns(_BIRTH, rows) | _columns(_LABELS, labels) | _columns(_FIRST_EVENTS, events)
    await fetch(db, "insert_sagas", **columns)


async def _move(moves: list[Append], found: dict[SagaKey, _Found], db: Db) -> None:
    heads = {append.key: append.head for append in moves}
    rows = [(*head_columns(head), found[key].saga, found[key].place[0]) for key, head in heads.items()]
    events = [
        (found[append.key].saga, record.sequence, record.kind, record.body)
        for append in moves
        for record in append.records
    ]
    ((moved,),) = await fetch(db, "move_sagas", **_columns(_MOVES, rows), **_columns(_EVENTS, events))
    if moved != len(rows):  # a second writer of this epoch, which there must not be: let it be judged anew
        raise asyncpg.SerializationError(f"{moved} of {len(rows)} heads moved")


def _columns(names: tuple[str, ...], rows: list[Row]) -> dict[str, object]:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return dict(zip(names, columns, strict=True))


async def get_saga(key: SagaKey, db: Db) -> StoredSaga:
    """Return a row. :raises NotFound:"""
    rows = await fetch(db, "select_saga", "of_key", namespace=key.namespace, saga_id=key.saga_id)
    if not rows:
        raise NotFound(f"There is no saga {key.saga_id!r} in namespace {key.namespace!r}.")
    return _saga_of(rows[0])


async def read_records(key: SagaKey, first: int, last: int, db: Db) -> list[Record]:
    """Return the records from one sequence to another, both included."""
    rows = await fetch(db, "read_events", namespace=key.namespace, saga_id=key.saga_id, first=first, last=last)
    return [record_of(tuple(row)) for row in rows]


async def list_due(
    until: Time, after: tuple[Time, SagaKey] | None, limit: int, partitions: Collection[int], db: Db
) -> list[StoredSaga]:
    """Return rows of those partitions by due time and key."""
    since, key = after or (TIME_MIN, SagaKey("", ""))
    return _sagas_of(
        await fetch(
            db,
            "select_saga",
            "by_due_time",
            partitions=sorted(partitions),
            since=since,
            until=until,
            namespace=key.namespace,
            saga_id=key.saga_id,
            limit=limit,
        )
    )


async def list_unfinished(
    after: SagaKey | None, limit: int, partitions: Collection[int], db: Db
) -> list[StoredSaga]:  # fmt: skip
    """Return rows of those partitions by key."""
    key = after or SagaKey("", "")
    return _sagas_of(
        await fetch(
            db,
            "select_saga",
            "unfinished",
            partitions=sorted(partitions),
            namespace=key.namespace,
            saga_id=key.saga_id,
            limit=limit,
        )
    )


async def list_sagas(where: SagaFilter, after: Cursor | None, limit: int, db: Db) -> SagaPage:
    """Return rows, newest first, then by id."""
    statuses = wanted_statuses(where)
    if statuses is None:
        return SagaPage([], None)
    conditions = _conditions(where, statuses, after, limit)
    ways = ways_to_list(where, statuses)
    reaches = [await _reach(way, conditions, limit, db) for way in ways]
    reach, way = min(zip(reaches, ways, strict=True), key=lambda pair: pair[0].merit)
    if reach.since is not None:
        conditions["since"] = reach.since
    if way[0].index == "by_status":  # which takes all statuses
        rows = await fetch(db, "select_saga", "by_status", "matching", "end_by_status", **conditions)
    else:
        rows = await fetch(db, "select_saga", way[0].index, "matching", **{**conditions, **way[0].values})
    return make_page(_sagas_of(rows), limit, reach)


def _conditions(
    where: SagaFilter, statuses: frozenset[SagaStatus], after: Cursor | None, limit: int
) -> dict[str, object]:
    after = after or Cursor(TIME_MAX, "")
    before = TIME_MAX if where.created_before is None else where.created_before - 1
    return {
        "namespace": where.namespace,
        "statuses": [code for status, code in STATUS_CODES.items() if status in statuses] if statuses else None,
        "definition_name": where.definition_name or None,
        "definition_version": where.definition_version or None,
        "labels": labels_text(where.labels) if where.labels else None,
        "since": TIME_MIN if where.created_after is None else where.created_after,
        "until": min(before, after.create_time),
        "after_time": after.create_time,
        "after_id": after.saga_id,
        "limit": limit + 1,
    }


async def _reach(way: Sequence[Range], conditions: dict[str, object], limit: int, db: Db) -> Reach:
    counted = rows_counted(way, limit)
    stretch = {name: conditions[name] for name in ("namespace", "since", "until")}
    counts: list[tuple[int, Time | None]] = []
    for part in way:
        ((rows, oldest),) = await fetch(db, f"reach_{part.index}", **stretch, **part.values, counted=counted)
        counts.append((rows, oldest))
    return reach_of(counts, counted)


def _sagas_of(rows: Iterable[asyncpg.Record]) -> list[StoredSaga]:
    return [_saga_of(row) for row in rows]


def _saga_of(row: asyncpg.Record) -> StoredSaga:
    return saga_of(tuple(row))
