"""The definitions of a namespace, as requests name them: found, checked with their participants, and registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amends.v1 import orchestrator_pb2 as pb
from amends_server.catalogue import Catalogue, Entry
from amends_server.clock import Clock
from amends_server.convert.definition import definition_body
from amends_server.engine.checks.problem import InvalidDefinition, Problem, is_wrong
from amends_server.engine.definition import Definition
from amends_server.engine.definition import digest as digest_of
from amends_server.errors import BadField, DefinitionInUse, DefinitionNotFound
from amends_server.participants import Participants
from amends_server.store.protocol import InUse, NotFound, StoredDefinition


class Definitions:
    """The catalogue behind the checks that requests need."""

    def __init__(self, catalogue: Catalogue, participants: Participants, clock: Clock) -> None:
        self._catalogue = catalogue
        self._participants = participants
        self._clock = clock

    def kept(self, namespace: str, reference: pb.DefinitionRef) -> Entry | None:
        """Return a definition if it is in memory, and certain to be what the reference names."""
        if reference.digest:
            return self._catalogue.kept(namespace, reference.digest)
        return self._catalogue.named(namespace, reference.name, reference.version)

    async def find(self, namespace: str, reference: pb.DefinitionRef) -> Entry:
        """Return a definition.

        :raises BadField: if the reference names none.
        :raises DefinitionNotFound: if it is not registered.
        """
        if not reference.name and not reference.digest:
            raise BadField("definition.name", "Name the definition, or give its digest.")
        if reference.version < 0:
            raise BadField("definition.version", "It must not be negative; 0 is the newest.")
        name, version, digest = reference.name, reference.version, reference.digest
        try:
            return await self._catalogue.find(namespace, name=name, version=version, digest=digest)
        except NotFound:
            raise DefinitionNotFound(namespace, name=name, version=version, digest=digest) from None

    async def check(self, definition: Definition) -> Sequence[Problem]:
        """Return what is wrong with its participants and their actions."""
        return await self._participants.check(definition)

    async def register(
        self, namespace: str, definition: Definition, field: str
    ) -> tuple[Entry, bool, Sequence[Problem]]:
        """Store a definition that was read from that field of a request; say whether it is new, and what it meets.

        :raises InvalidDefinition: if its participants cannot do what it asks of them.
        """
        found = await self._participants.check(definition)
        if is_wrong(found):
            raise InvalidDefinition([replace(problem, field=f"{field}.{problem.field}") for problem in found])
        stored = StoredDefinition(
            namespace=namespace,
            name=definition.name,
            version=0,
            digest=digest_of(definition),
            body=definition_body(definition),
            create_time=self._clock.now(),
        )
        entry, created = await self._catalogue.register(stored)
        return entry, created, found

    async def delete(self, namespace: str, reference: pb.DefinitionRef) -> None:
        """Remove one version of a definition.

        :raises DefinitionInUse: while stored sagas have it.
        """
        if not reference.version and not reference.digest:
            raise BadField(
                "definition.version", "Name the version, or the digest: a name alone is not enough to delete."
            )
        stored = (await self.find(namespace, reference)).stored
        try:
            await self._catalogue.delete(stored)
        except InUse:
            raise DefinitionInUse(namespace, stored.name, stored.version) from None

    def forget(self, entry: Entry) -> None:
        """Read a definition anew when it is wanted again: the store has it no more."""
        self._catalogue.forget(entry.stored.namespace, entry.stored.digest)
