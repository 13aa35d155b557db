"""Which sagas a command is for: the options of `amends list`, and the conditions of `--where`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from amends_server.cli.exits import usage_error
from amends_server.cli.options import read_duration, read_labels

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from amends.v1 import orchestrator_pb2, saga_pb2

CONDITIONS = ("status", "definition", "label", "newer-than", "older-than", "running-longer-than")
REPEATED = ("status", "label")


def make_filter(
    *,
    status: Iterable[str] = (),
    definition: str = "",
    label: Iterable[str] = (),
    newer_than: str | None = None,
    older_than: str | None = None,
    running_longer_than: str | None = None,
    option: str = "--",
) -> orchestrator_pb2.SagaFilter:
    """The filter that the conditions make together. `option` stands before their names in errors.

    :raises CommandError: if one of them cannot be meant.
    """
    from amends.v1 import orchestrator_pb2 as pb
    from amends_server.cli.definitions.references import read_version

    name, version = read_version(definition)
    made = pb.SagaFilter(
        statuses=read_statuses(status),
        definition=name,
        definition_version=version,
        labels=read_labels(label, f"{option}label{'=' if option.endswith(' ') else ' '}"),
        created_after=_ago(newer_than, f"{option}newer-than"),
        created_before=_ago(older_than, f"{option}older-than"),
    )
    age_s = read_duration(running_longer_than, f"{option}running-longer-than")
    if age_s is not None:
        made.running_longer_than.FromMilliseconds(round(age_s * 1_000))
    return made


def read_where(conditions: Iterable[str]) -> orchestrator_pb2.SagaFilter:
    """The filter of `--where NAME=VALUE`, given as often as there are conditions."""
    given: dict[str, list[str]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if name not in CONDITIONS or not equals or not value:
            raise usage_error(f"`{condition}` is no condition: write NAME=VALUE, NAME one of {', '.join(CONDITIONS)}.")
        given.setdefault(name, []).append(value)
    twice = [name for name, values in given.items() if len(values) > 1 and name not in REPEATED]
    if twice:
        raise usage_error(f"--where {twice[0]}=… is given twice: leave one of them out.")

    def one(name: str) -> str | None:
        return next(iter(given.get(name, [])), None)

    return make_filter(
        status=given.get("status", []),
        definition=one("definition") or "",
        label=given.get("label", []),
        newer_than=one("newer-than"),
        older_than=one("older-than"),
        running_longer_than=one("running-longer-than"),
        option="--where ",
    )


def read_statuses(names: Iterable[str]) -> list[saga_pb2.SagaStatus.ValueType]:
    """The statuses that are called so, in upper or lower case."""
    from amends.v1 import saga_pb2

    known = {name.removeprefix("SAGA_STATUS_"): number for name, number in saga_pb2.SagaStatus.items() if number}
    asked = list(names)
    unknown = [name for name in asked if name.upper() not in known]
    if unknown:
        raise usage_error(f"There is no status `{unknown[0]}`: statuses are {', '.join(known)}.")
    return [known[name.upper()] for name in asked]


def _ago(age: str | None, option: str) -> Timestamp | None:
    from google.protobuf.timestamp_pb2 import Timestamp

    age_s = read_duration(age, option)
    if age_s is None:
        return None
    stamp = Timestamp()
    stamp.FromMilliseconds(max(0, round((time.time() - age_s) * 1_000)))
    return stamp
