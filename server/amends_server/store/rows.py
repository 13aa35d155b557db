"""Between the rows of the SQL stores and the types of the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amends_server.engine.state import FINAL, SagaStatus
from amends_server.store.protocol import (
    Birth,
    Head,
    Record,
    SagaKey,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
)

Row = tuple[Any, ...]

STATUS_CODES = {
    SagaStatus.PENDING: 1,
    SagaStatus.RUNNING: 2,
    SagaStatus.COMPENSATING: 3,
    SagaStatus.STUCK: 4,
    SagaStatus.COMPLETED: 10,
    SagaStatus.COMPENSATED: 11,
    SagaStatus.FAILED: 12,
}
"""How statuses are stored, for ever; the final ones from 10 on."""

_STATUSES = {code: status for status, code in STATUS_CODES.items()}

UNFINISHED = frozenset(STATUS_CODES) - FINAL


def birth_columns(key: SagaKey, birth: Birth) -> Row:
    return (
        key.namespace,
        key.saga_id,
        birth.definition_name,
        birth.definition_version,
        birth.definition_digest,
        birth.fingerprint,
        birth.create_time,
        birth.deadline,
        labels_text(birth.labels) if birth.labels else None,
    )


def head_columns(head: Head) -> Row:
    return (
        head.sequence,
        head.epoch,
        STATUS_CODES[head.status],
        head.paused,
        head.due_time,
        head.update_time,
        head.end_time,
    )


def labels_text(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), separators=(",", ":"))


def saga_of(row: Row) -> StoredSaga:
    namespace, saga_id, name, version, digest, fingerprint, create_time, deadline, labels, *head = row
    sequence, epoch, status, paused, due_time, update_time, end_time = head
    return StoredSaga(
        key=SagaKey(namespace, saga_id),
        birth=Birth(
            definition_name=name,
            definition_version=version,
            definition_digest=digest,
            fingerprint=fingerprint,
            create_time=create_time,
            deadline=deadline,
            labels={} if labels is None else json.loads(labels),
        ),
        head=Head(
            sequence=sequence,
            epoch=epoch,
            status=_STATUSES[status],
            paused=bool(paused),
            due_time=due_time,
            update_time=update_time,
            end_time=end_time,
        ),
    )


def record_of(row: Row) -> Record:
    return Record(*row)


def definition_of(row: Row) -> StoredDefinition:
    namespace, name, version, digest, body, create_time = row
    return StoredDefinition(
        namespace=namespace, name=name, version=version, digest=digest, body=body, create_time=create_time
    )


def participant_of(row: Row) -> StoredParticipant:
    name, address, concurrency_max, actions, update_time = row
    return StoredParticipant(
        name=name, address=address, concurrency_max=concurrency_max, actions=actions, update_time=update_time
    )
