"""`amends` of a version to come: it has one migration more, and the sagas that are labelled `next` say what is new.

Run as a program by the tests of versions that run side by side; nothing else knows of it.
"""

from __future__ import annotations

import runpy

from amends_server import codec
from amends_server.engine.events import Event, SagaStarted
from amends_server.runner import active
from amends_server.store.migration import Migration, load_migrations
from amends_server.store.postgres import store as postgres
from amends_server.store.protocol import Record

MORE = """
alter table saga add column priority integer not null default 0;
create table priority (name text primary key);
create index saga_by_priority on saga (priority);
"""
NEW_FIELD = b"\xa2\x7d\x01x"
"""Field 2004, a text."""


def migrations(store: str) -> list[Migration]:
    known = load_migrations(store)
    return [*known, Migration(len(known) + 1, "next", MORE)]


def encode(event: Event, sequence: int) -> Record:
    record = codec.encode(event, sequence)
    if isinstance(event, SagaStarted) and "next" in event.labels:
        return record._replace(body=record.body + NEW_FIELD)
    return record


if __name__ == "__main__":
    postgres.load_migrations = migrations  # type: ignore[attr-defined]
    active.encode = encode  # type: ignore[attr-defined]
    codec.drop_unknown = lambda message: False  # type: ignore[attr-defined] # it knows the field
    runpy.run_module("amends_server.cli", run_name="__main__")
