"""Records of the journal: every event comes back as it was, and what cannot be read says where and why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends.v1 import saga_pb2
from amends_server import codec
from amends_server.convert.event import _WRITERS
from amends_server.engine import events as e
from amends_server.engine.payload import Error, Json
from amends_server.errors import CorruptRecord
from amends_server.store.protocol import Record, SagaKey
from tests.server.strategies import EVENT_TYPES, events_of

KEY = SagaKey("default", "s-1")


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type[e.Event], data: st.DataObject) -> None:
    event = data.draw(events_of(kind))
    sequence = data.draw(st.integers(1, 2**62))
    record = codec.encode(event, sequence)
    assert record.sequence == sequence
    assert codec.decode(KEY, record) == event


@given(data=st.data())
@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_watchers_see_the_record_as_it_is(kind: type[e.Event], data: st.DataObject) -> None:
    event = data.draw(events_of(kind))
    record = codec.encode(event, 7)
    message = codec.to_wire(KEY, record)
    assert message.SerializeToString(deterministic=True) == record.body
    assert message.sequence == 7
    assert message.WhichOneof("kind") == record.kind
    assert message.time.ToMicroseconds() == event.time


def test_the_key_is_not_in_the_bytes() -> None:
    started = e.SagaStarted(time=1, namespace="spacious", saga_id="curious", definition_digest="d", input=None)
    record = codec.encode(started, 1)
    assert b"spacious" not in record.body
    assert b"curious" not in record.body
    assert codec.decode(SagaKey("spacious", "curious"), record) == started


OLD_RECORDS = (Path(__file__).parent / "records.txt").read_text(encoding="ascii").splitlines()
"""A record of each kind as it was first written, in hexadecimal. Lines are added, never changed: journals are kept."""


def test_there_is_an_old_record_of_every_kind() -> None:
    assert {line.split()[0] for line in OLD_RECORDS} == {_WRITERS[kind][0] for kind in EVENT_TYPES}


@pytest.mark.parametrize("line", OLD_RECORDS, ids=lambda line: line.split()[0])
def test_old_records_stay_readable(line: str) -> None:
    kind, body = line.split()
    message = codec.to_wire(KEY, record := Record(3, kind, bytes.fromhex(body)))
    event = codec.decode(KEY, record)
    assert message.WhichOneof("kind") == kind
    again = codec.encode(event, 3)
    assert again.kind == kind
    assert saga_pb2.Event.FromString(again.body) == message  # nothing was left out


@pytest.mark.parametrize("depth", ["event", "kind", "payload"])
def test_what_a_later_version_added_is_refused_and_not_left_out(depth: str) -> None:
    """Or an older orchestrator beside newer ones would fold the journal into another state."""
    later = b"\xa2\x7d\x01x"  # field 2004, which is none
    payload = saga_pb2.StepSucceeded(step="a").output
    payload.MergeFromString(later if depth == "payload" else b"")
    succeeded = saga_pb2.StepSucceeded(step="a", output=payload)
    succeeded.MergeFromString(later if depth == "kind" else b"")
    message = saga_pb2.Event(sequence=7, time={"seconds": 1}, step_succeeded=succeeded)
    record = Record(7, "step_succeeded", message.SerializeToString() + (later if depth == "event" else b""))
    with pytest.raises(CorruptRecord, match="more than this version knows of"):
        codec.decode(KEY, record)
    assert later in codec.to_wire(KEY, record).SerializeToString()  # those who watch may know it


CORRUPT = {
    "its bytes are no event": b"\xff\xff\xff",
    "it says that it is event 8": saga_pb2.Event(
        sequence=8, time={"seconds": 1}, saga_compensated=saga_pb2.SagaCompensated()
    ).SerializeToString(),
    "its kind (none) is not known to this version": saga_pb2.Event(sequence=9, time={"seconds": 1}).SerializeToString(),
    "it has no time": saga_pb2.Event(sequence=9, saga_compensated=saga_pb2.SagaCompensated()).SerializeToString(),
    "the cause is of no known kind": saga_pb2.Event(
        sequence=9, time={"seconds": 1}, saga_turned_back=saga_pb2.SagaTurnedBack()
    ).SerializeToString(),
    "its resolution (77) is not known to this version": saga_pb2.Event(
        sequence=9,
        time={"seconds": 1},
        step_resolved=saga_pb2.StepResolved(resolution=77),  # type: ignore[arg-type]
    ).SerializeToString(),
    "its reply status (0) is not known to this version": saga_pb2.Event(
        sequence=9, time={"seconds": 1}, late_reply_recorded=saga_pb2.LateReplyRecorded(step="a")
    ).SerializeToString(),
}


@pytest.mark.parametrize("reason", CORRUPT)
def test_i34_what_cannot_be_read_says_where_and_why(reason: str) -> None:
    with pytest.raises(CorruptRecord) as caught:
        codec.decode(KEY, Record(9, "any", CORRUPT[reason]))
    assert (caught.value.saga_id, caught.value.sequence, caught.value.reason) == ("s-1", 9, reason)
    assert caught.value.metadata == {"namespace": "default", "saga_id": "s-1", "sequence": "9"}


@given(data=st.data())
@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_i34_a_record_that_is_cut_off_is_never_another_event(kind: type[e.Event], data: st.DataObject) -> None:
    event = data.draw(events_of(kind))
    record = codec.encode(event, 3)
    cut = record.body[: data.draw(st.integers(0, len(record.body) - 1))]
    with pytest.raises(CorruptRecord):
        codec.decode(KEY, Record(3, record.kind, cut))


def test_encoding_stays_off_the_profile() -> None:
    """A bound that only a mistake in kind exceeds: a few microseconds are usual."""
    error = Error("TIMEOUT", "No answer came in time.", "payment")
    sample = [
        e.StepDispatched(1_789_000_000_123_456, "charge", 1, Json('{"a":1}')),
        e.StepSucceeded(1_789_000_000_123_456, "charge", 1, Json('{"a":1}')),
        e.StepRetryScheduled(1_789_000_000_123_456, "charge", 1, error, 1_789_000_001_123_456),
    ]
    rounds = 2_000
    began = time.process_time()
    for _ in range(rounds):
        for event in sample:
            codec.decode(KEY, codec.encode(event, 1))
    assert (time.process_time() - began) / rounds / len(sample) < 200e-6
