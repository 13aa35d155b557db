"""What SQLite does for definitions and participants: plain functions on a connection, as for sagas."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from amends_server.store.protocol import InUse, NotFound, StoredDefinition, StoredParticipant
from amends_server.store.rows import definition_of, participant_of
from amends_server.store.sagas import SQL

_VERSION_MAX = 2**63 - 1


def put_definition(definition: StoredDefinition, db: sqlite3.Connection) -> tuple[StoredDefinition, bool]:
    """Register a definition, or find it by its digest."""
    stored = _find("of_digest", (definition.namespace, definition.digest), db)
    if stored is not None:
        return stored, False
    (version,) = db.execute(SQL["next_version"], (definition.namespace, definition.name)).fetchone()
    new = replace(definition, version=version)
    db.execute(SQL["insert_definition"], (new.namespace, new.name, new.version, new.digest, new.body, new.create_time))
    return new, True


def get_definition(namespace: str, name: str, version: int, digest: str, db: sqlite3.Connection) -> StoredDefinition:
    """Find a definition. :raises NotFound:"""
    if digest:
        stored = _find("of_digest", (namespace, digest), db)
    elif version:
        stored = _find("of_version", (namespace, name, version), db)
    else:
        stored = _find("newest", (namespace, name), db)
    if stored is None:
        raise NotFound(f"There is no such definition in namespace {namespace!r}.")
    return stored


def list_definitions(
    namespace: str, name: str, after: tuple[str, int] | None, limit: int, db: sqlite3.Connection
) -> list[StoredDefinition]:
    """Return definitions by name, newest version first."""
    after_name, after_version = after or (name, _VERSION_MAX)
    if name and after_name != name:
        after_version = _VERSION_MAX if after_name < name else 0
    where = {
        "namespace": namespace, "name": name, "after_name": after_name, "after_version": after_version, "limit": limit
    }  # fmt: skip
    which = "definitions_of_name" if name else "definitions_of_all_names"
    return [definition_of(row) for row in db.execute(SQL["select_definition"] + SQL[which], where)]


def delete_definition(namespace: str, digest: str, db: sqlite3.Connection) -> None:
    """Remove a definition. :raises NotFound: :raises InUse:"""
    stored = _find("of_digest", (namespace, digest), db)
    if stored is None:
        raise NotFound(f"There is no such definition in namespace {namespace!r}.")
    uses = db.execute(SQL["definition_in_use"], (namespace, stored.name, stored.version))
    if uses.fetchone() != (0,):
        raise InUse("Sagas of this definition are stored.")
    db.execute(SQL["delete_definition"], (namespace, digest))


def put_participant(participant: StoredParticipant, db: sqlite3.Connection) -> None:
    """Register a participant or replace it."""
    db.execute(
        SQL["put_participant"],
        (
            participant.name,
            participant.address,
            participant.concurrency_max,
            participant.actions,
            participant.update_time,
        ),
    )


def list_participants(db: sqlite3.Connection) -> list[StoredParticipant]:
    """Return all by name."""
    return [participant_of(row) for row in db.execute(SQL["list_participants"])]


def delete_participant(name: str, db: sqlite3.Connection) -> None:
    """Remove a participant. :raises NotFound:"""
    if db.execute(SQL["delete_participant"], (name,)).rowcount == 0:
        raise NotFound(f"There is no participant {name!r}.")


def _find(which: str, values: tuple[object, ...], db: sqlite3.Connection) -> StoredDefinition | None:
    row = db.execute(SQL["select_definition"] + SQL[which], values).fetchone()
    return None if row is None else definition_of(row)
