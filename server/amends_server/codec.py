"""Records of the journal: an event's bytes are the wire's own message, so that watching needs no second encoding."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from amends.v1 import saga_pb2
from amends_server.convert.event import event_from_wire, event_to_wire, kind_of
from amends_server.convert.unknown import drop_unknown
from amends_server.engine.events import Event, SagaStarted
from amends_server.errors import CorruptRecord
from amends_server.store.protocol import Record, SagaKey


def encode(event: Event, sequence: int) -> Record:
    """Return the record of an event. The namespace and id of a start are the saga's key and not repeated in it."""
    message = event_to_wire(event, sequence)
    # Only a start holds a map, the labels, whose order has to be settled.
    body = (
        message.SerializeToString(deterministic=True) if isinstance(event, SagaStarted) else message.SerializeToString()
    )
    return Record(sequence, kind_of(event), body)


def decode(key: SagaKey, record: Record) -> Event:
    """Return the event of a record in the journal of saga `key`.

    :raises CorruptRecord: if this version cannot read it.
    """
    message = to_wire(key, record)
    try:
        event = event_from_wire(message, key.namespace, key.saga_id)
        if drop_unknown(message):  # it may mean something that this version would not do
            raise ValueError("it says more than this version knows of")
        return event
    except ValueError as error:
        raise CorruptRecord(key.namespace, key.saga_id, record.sequence, str(error)) from None


def to_wire(key: SagaKey, record: Record) -> saga_pb2.Event:
    """Return the message that a record holds, for watchers.

    :raises CorruptRecord: if its bytes are no such message, or one from another place in the journal.
    """
    try:
        message = saga_pb2.Event.FromString(record.body)
    except DecodeError:
        raise CorruptRecord(key.namespace, key.saga_id, record.sequence, "its bytes are no event") from None
    if message.sequence != record.sequence:
        reason = f"it says that it is event {message.sequence}"
        raise CorruptRecord(key.namespace, key.saga_id, record.sequence, reason)
    return message
