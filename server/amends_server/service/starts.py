"""StartSaga: what a start asks for, and whether a repeated one asks for the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from amends.v1 import orchestrator_pb2 as pb
from amends_server.catalogue import Entry
from amends_server.convert.payload import read_payload
from amends_server.engine.events import SagaStarted
from amends_server.engine.payload import Json, Message, Opaque, Payload
from amends_server.engine.policy import Time
from amends_server.errors import BadField, NotServed
from amends_server.service.fields import read_duration, read_key, read_labels
from amends_server.store.protocol import Birth, SagaKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start that was checked. `fingerprint` covers all that the client said but the definition."""

    key: SagaKey
    input: Payload | None
    labels: dict[str, str]
    deadline_us: int | None
    fingerprint: bytes

    def birth(self, entry: Entry, now: Time) -> Birth:
        """Return the row's unchanging part."""
        return Birth(
            definition_name=entry.stored.name,
            definition_version=entry.stored.version,
            definition_digest=entry.stored.digest,
            fingerprint=self.fingerprint,
            create_time=now,
            deadline=self._deadline(entry, now),
            labels=self.labels,
        )

    def event(self, entry: Entry, now: Time, principal: str, traceparent: str) -> SagaStarted:
        """Return the first event."""
        return SagaStarted(
            time=now,
            namespace=self.key.namespace,
            saga_id=self.key.saga_id,
            definition_digest=entry.stored.digest,
            input=self.input,
            labels=self.labels,
            deadline=self._deadline(entry, now),
            principal=principal,
            traceparent=traceparent,
        )

    def repeats(self, birth: Birth, reference: pb.DefinitionRef) -> bool:
        """Tell whether a saga was started with the same content. The newest version of a name is any version of it."""
        if birth.fingerprint != self.fingerprint:
            return False
        if reference.digest:
            return birth.definition_digest == reference.digest
        return birth.definition_name == reference.name and reference.version in (0, birth.definition_version)

    def _deadline(self, entry: Entry, now: Time) -> Time | None:
        deadline_us = self.deadline_us if self.deadline_us is not None else entry.graph.definition.deadline_us
        return None if deadline_us is None else now + deadline_us


def read_start(request: pb.StartSagaRequest, saga_id: str, payload_bytes_max: int) -> Start:
    """Check a start. `saga_id` is the client's, or one that was made for it.

    :raises amends_server.errors.ServiceError: with the field that is wrong.
    """
    key = read_key(request.namespace, saga_id)
    if request.HasField("start_time"):
        raise NotServed("start_time")
    deadline_us = read_duration(request.deadline, "deadline") if request.HasField("deadline") else None
    if deadline_us is not None and deadline_us <= 0:
        raise BadField("deadline", "It must be more than 0; leave it out for the definition's.")
    payload = read_payload(request.input, "input", payload_bytes_max)
    labels = read_labels(request.labels, "labels")
    fingerprint = _fingerprint(payload, labels, deadline_us)
    return Start(key=key, input=payload, labels=labels, deadline_us=deadline_us, fingerprint=fingerprint)


def _fingerprint(payload: Payload | None, labels: dict[str, str], deadline_us: int | None) -> bytes:
    """Return 16 bytes that are equal for equal content. Lengths stand before texts, so nothing can be shifted."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in (
        *_parts(payload),
        str(deadline_us).encode(),
        *(p.encode() for kv in sorted(labels.items()) for p in kv),
    ):
        hashed.update(len(part).to_bytes(4, "big"))
        hashed.update(part)
    return hashed.digest()


def _parts(payload: Payload | None) -> tuple[bytes, bytes, bytes]:
    match payload:
        case None:
            return b"none", b"", b""
        case Json(text):
            return b"json", text.encode(), b""
        case Message(type_url, value):
            return b"message", type_url.encode(), value
        case Opaque(data, content_type):
            return b"opaque", content_type.encode(), data
