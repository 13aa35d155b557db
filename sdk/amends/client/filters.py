"""Which sagas are meant: by status, definition, labels and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from google.protobuf import timestamp_pb2

from amends.policies import Duration, duration_message
from amends.v1 import orchestrator_pb2, saga_pb2
from amends.views import SagaStatus


class Where(TypedDict, total=False):
    """What must hold of a saga, all of it."""

    status: SagaStatus | Iterable[SagaStatus]
    """It has this status, or one of these: `SagaStatus.STUCK` for those that need an operator."""
    definition: str
    """It runs a definition of this name."""
    definition_version: int
    """It runs this version of it."""
    labels: Mapping[str, str]
    """It has all these labels."""
    created_after: datetime | None
    """It was accepted then or later; the time has a time zone."""
    created_before: datetime | None
    """It was accepted before; the time has a time zone."""
    running_longer_than: Duration | None
    """It is unfinished, and was accepted longer ago than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A filter with its defaults."""

    status: SagaStatus | Iterable[SagaStatus] = ()
    definition: str = ""
    definition_version: int = 0
    labels: Mapping[str, str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    running_longer_than: Duration | None = None


def filter_message(where: Where) -> orchestrator_pb2.SagaFilter:
    """A filter for the wire.

    :raises ValueError: if a time has no time zone.
    """
    given = _Given(**where)
    statuses = [given.status] if isinstance(given.status, SagaStatus) else given.status
    return orchestrator_pb2.SagaFilter(
        statuses=[saga_pb2.SagaStatus.Value(f"SAGA_STATUS_{each}") for each in statuses],
        definition=given.definition,
        definition_version=given.definition_version,
        labels=given.labels,
        created_after=timestamp(given.created_after),
        created_before=timestamp(given.created_before),
        running_longer_than=duration_message(given.running_longer_than, "running_longer_than"),
    )


def timestamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    """A time for the wire.

    :raises ValueError: if it has no time zone.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp
