"""StartSaga: what a start asks for, and whether a repeated one asks for the same."""

from __future__ import annotations

import hashlib

from amends.v1 import orchestrator_pb2 as pb
from amends_server.catalogue import Entry
from amends_server.convert.definition import DURATION_US_MAX
from amends_server.convert.payload import read_payload
from amends_server.engine.data.jsonvalue import TemplateError
from amends_server.engine.events import SagaStarted
from amends_server.engine.payload import Json, Message, Opaque, Payload
from amends_server.engine.policy import Time
from amends_server.engine.value import dataclass
from amends_server.errors import BadField
from amends_server.service.fields import TIMES, read_duration, read_key, read_labels, read_time
from amends_server.store.protocol import Birth, SagaKey

START_TIME_MAX = TIMES.stop - 3 * DURATION_US_MAX
"""A deadline of a hundred years from there still has a Timestamp, and so has what comes after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start that was checked. `fingerprint` covers all that the client said but the definition."""

    key: SagaKey
    input: Payload | None
    labels: dict[str, str]
    deadline_us: int | None
    start_time: Time | None
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
            start_time=self.start_time if self.start_time is not None and self.start_time > now else None,
        )

    def fits(self, entry: Entry) -> bool:
        """Tell whether the input meets the schema of the definition."""
        try:
            self.check_input(entry)
        except BadField:
            return False
        return True

    def check_input(self, entry: Entry) -> None:
        """Check the input against the schema of the definition, if it has one.

        :raises BadField: with the place in the input.
        """
        schema = entry.graph.input_schema
        if schema is None:
            return
        if self.input is not None and not isinstance(self.input, Json):
            raise BadField("input", f"Definition `{entry.stored.name}` has a schema for its input: send it as JSON.")
        try:
            violation = schema.violation(None if self.input is None else self.input.text)
        except TemplateError as problem:
            raise BadField("input", str(problem)) from None
        if violation is not None:
            name, field = entry.stored.name, violation.at("input")
            raise BadField(field, f"The input does not meet the schema of definition `{name}`: {violation.message}.")

    def repeats(self, birth: Birth, reference: pb.DefinitionRef) -> bool:
        """Tell whether a saga was started with the same content. The newest version of a name is any version of it."""
        if birth.fingerprint != self.fingerprint:
            return False
        if reference.digest:
            return birth.definition_digest == reference.digest
        return birth.definition_name == reference.name and reference.version in (0, birth.definition_version)

    def _deadline(self, entry: Entry, now: Time) -> Time | None:
        deadline_us = self.deadline_us if self.deadline_us is not None else entry.graph.definition.deadline_us
        return None if deadline_us is None else max(now, self.start_time or now) + deadline_us


def read_start(request: pb.StartSagaRequest, saga_id: str, payload_bytes_max: int) -> Start:
    """Check a start. `saga_id` is the client's, or one that was made for it.

    :raises amends_server.errors.ServiceError: with the field that is wrong.
    """
    key = read_key(request.namespace, saga_id)
    start_time = read_time(request.start_time, "start_time") if request.HasField("start_time") else None
    if start_time is not None and start_time > START_TIME_MAX:
        raise BadField("start_time", "It must be before the year 9700, so that deadlines after it can be written.")
    deadline_us = read_duration(request.deadline, "deadline") if request.HasField("deadline") else None
    if deadline_us is not None and deadline_us <= 0:
        raise BadField("deadline", "It must be more than 0; leave it out for the definition's.")
    payload = read_payload(request.input, "input", payload_bytes_max)
    labels = read_labels(request.labels, "labels")
    return Start(
        key=key,
        input=payload,
        labels=labels,
        deadline_us=deadline_us,
        start_time=start_time,
        fingerprint=_fingerprint(payload, labels, deadline_us, start_time),
    )


def _fingerprint(
    payload: Payload | None, labels: dict[str, str], deadline_us: int | None, start_time: Time | None
) -> bytes:
    """Return 16 bytes that are equal for equal content. Lengths stand before texts, so nothing can be shifted."""
    parts = [*_parts(payload), str(deadline_us).encode()]
    if labels:
        parts += [p.encode() for kv in sorted(labels.items()) for p in kv]
    if start_time is not None:
        parts += [b"start", str(start_time).encode(), b""]  # labels come in twos
    content = b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])
    return hashlib.blake2b(content, digest_size=16).digest()


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
