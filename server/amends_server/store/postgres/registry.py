"""What PostgreSQL does for definitions and participants: functions on a connection, as for sagas."""

from __future__ import annotations

from dataclasses import replace

from amends_server.store.postgres.statements import Db, fetch, texts
from amends_server.store.protocol import InUse, NotFound, StoredDefinition, StoredParticipant
from amends_server.store.rows import definition_of, participant_of

CHANGES = texts(
    ("select_definition", "of_digest"),
    ("next_version",),
    ("insert_definition",),
    ("lock_definition",),
    ("definition_in_use",),
    ("delete_definition",),
    ("put_participant",),
    ("delete_participant",),
)
"""What runs in the transactions that change definitions and participants."""

_VERSION_MAX = 2**63 - 1


async def put_definition(definition: StoredDefinition, db: Db) -> tuple[StoredDefinition, bool]:
    """Register a definition, or find it by its digest. Two that do it at once: one of them has to do it again."""
    stored = await _find("of_digest", db, namespace=definition.namespace, digest=definition.digest)
    if stored is not None:
        return stored, False
    ((version,),) = await fetch(db, "next_version", namespace=definition.namespace, name=definition.name)
    new = replace(definition, version=version)
    await fetch(
        db,
        "insert_definition",
        namespace=new.namespace,
        name=new.name,
        version=new.version,
        digest=new.digest,
        body=new.body,
        create_time=new.create_time,
    )
    return new, True


async def get_definition(namespace: str, name: str, version: int, digest: str, db: Db) -> StoredDefinition:
    """Find a definition. :raises NotFound:"""
    which = "of_digest" if digest else "of_version" if version else "newest"
    stored = await _find(which, db, namespace=namespace, name=name, version=version, digest=digest)
    if stored is None:
        raise NotFound(f"There is no such definition in namespace {namespace!r}.")
    return stored


async def list_definitions(
    namespace: str, name: str, after: tuple[str, int] | None, limit: int, db: Db
) -> list[StoredDefinition]:
    """Return definitions by name, newest version first."""
    after_name, after_version = after or (name, _VERSION_MAX)
    if name and after_name != name:
        after_version = _VERSION_MAX if after_name < name else 0
    rows = await fetch(
        db,
        "select_definition",
        "definitions_of_name" if name else "definitions_of_all_names",
        namespace=namespace,
        name=name,
        after_name=after_name,
        after_version=after_version,
        limit=limit,
    )
    return [definition_of(tuple(row)) for row in rows]


async def delete_definition(namespace: str, digest: str, db: Db) -> None:
    """Remove a definition. :raises NotFound: :raises InUse:"""
    stored = await _find("of_digest", db, namespace=namespace, digest=digest)
    if stored is None:
        raise NotFound(f"There is no such definition in namespace {namespace!r}.")
    await fetch(db, "lock_definition", namespace=namespace, digest=digest)
    ((used,),) = await fetch(
        db, "definition_in_use", namespace=namespace, name=stored.name, version=stored.version
    )  # fmt: skip
    if used:
        raise InUse("Sagas of this definition are stored.")
    await fetch(db, "delete_definition", namespace=namespace, digest=digest)


async def put_participant(participant: StoredParticipant, db: Db) -> None:
    """Register a participant or replace it."""
    await fetch(
        db,
        "put_participant",
        name=participant.name,
        address=participant.address,
        concurrency_max=participant.concurrency_max,
        actions=participant.actions,
        update_time=participant.update_time,
    )


async def list_participants(db: Db) -> list[StoredParticipant]:
    """Return all by name."""
    return [participant_of(tuple(row)) for row in await fetch(db, "list_participants")]


async def delete_participant(name: str, db: Db) -> None:
    """Remove a participant. :raises NotFound:"""
    if not await fetch(db, "delete_participant", name=name):
        raise NotFound(f"There is no participant {name!r}.")


async def _find(which: str, db: Db, **values: object) -> StoredDefinition | None:
    rows = await fetch(db, "select_definition", which, **values)
    return definition_of(tuple(rows[0])) if rows else None
