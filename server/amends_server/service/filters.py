"""SagaFilter: which sagas a list or a bulk form is for."""

from __future__ import annotations

from amends.v1 import orchestrator_pb2, saga_pb2
from amends_server.convert.enums import SAGA_STATUS_FROM_WIRE
from amends_server.engine.policy import Time
from amends_server.engine.state import SagaStatus
from amends_server.errors import BadField
from amends_server.service.fields import read_duration, read_labels, read_time
from amends_server.store.protocol import SagaFilter


def read_filter(namespace: str, message: orchestrator_pb2.SagaFilter, now: Time) -> SagaFilter:
    """Return a filter. `now` is what `running_longer_than` counts back from.

    :raises BadField: if it cannot be meant.
    """
    after = read_time(message.created_after, "filter.created_after") if message.HasField("created_after") else None
    before = read_time(message.created_before, "filter.created_before") if message.HasField("created_before") else None
    age = message.running_longer_than if message.HasField("running_longer_than") else None
    if age is not None:
        age_us = read_duration(age, "filter.running_longer_than")
        if age_us < 0:
            raise BadField("filter.running_longer_than", "It must not be negative.")
        before = now - age_us if before is None else min(before, now - age_us)
    if message.definition_version and not message.definition:
        raise BadField("filter.definition", "A version alone says nothing: name the definition too.")
    return SagaFilter(
        namespace=namespace,
        statuses=_read_statuses(message),
        definition_name=message.definition,
        definition_version=message.definition_version,
        labels=read_labels(message.labels, "filter.labels"),
        created_after=after,
        created_before=before,
        unfinished_only=age is not None,
    )


def _read_statuses(message: orchestrator_pb2.SagaFilter) -> frozenset[SagaStatus]:
    """Return the statuses asked for; the unspecified one is any."""
    if saga_pb2.SAGA_STATUS_UNSPECIFIED in message.statuses:
        return frozenset()
    statuses: set[SagaStatus] = set()
    for i, number in enumerate(message.statuses):
        status = SAGA_STATUS_FROM_WIRE.get(number)
        if status is None:
            raise BadField(f"filter.statuses[{i}]", f"There is no status {number}.")
        statuses.add(status)
    return frozenset(statuses)
