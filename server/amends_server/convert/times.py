"""Times and durations: integer microseconds in the engine, Timestamp and Duration on the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from amends_server.engine.policy import SECOND_US, Time

_NANOSECONDS = 1_000
"""In a microsecond. Finer parts are cut off."""


def set_time(to: Timestamp, time: Time) -> None:
    """Write a time into a field that is there already: several times as fast as building a Timestamp."""
    to.seconds, rest_us = divmod(time, SECOND_US)
    to.nanos = rest_us * _NANOSECONDS


def time_from_wire(timestamp: Timestamp) -> Time:
    """Return the microseconds since the Unix epoch."""
    return timestamp.seconds * SECOND_US + timestamp.nanos // _NANOSECONDS


def set_duration(to: Duration, duration_us: int) -> None:
    """Write a duration, which must not be negative, into a field that is there already."""
    to.seconds, rest_us = divmod(duration_us, SECOND_US)
    to.nanos = rest_us * _NANOSECONDS


def set_signed_duration(to: Duration, duration_us: int) -> None:
    """Write a duration that may be negative: on the wire both parts have its sign."""
    to.FromMicroseconds(duration_us)


def duration_from_wire(duration: Duration) -> int:
    """Return the microseconds; what is less than zero stays so."""
    return duration.seconds * SECOND_US + duration.nanos // _NANOSECONDS
