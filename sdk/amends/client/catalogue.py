"""The catalogue of an orchestrator: definitions of sagas, participants, and the orchestrators beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from amends.client.connection import Connected, Connection, pages
from amends.definition.builder import Saga
from amends.v1 import definition_pb2, operator_pb2, orchestrator_pb2


class Catalogue(Connected):
    """The part of a client that registers definitions and participants, and looks at orchestrators."""

    async def register(
        self, definition: Saga[Any, Any] | definition_pb2.Definition
    ) -> orchestrator_pb2.RegisterDefinitionResponse:
        """Register a definition: the same content gets the same version again, other content the next one.

        :raises InvalidArgument: if it is refused; `violations` says why.
        """
        request = orchestrator_pb2.RegisterDefinitionRequest(
            namespace=self._namespace, definition=_definition(definition)
        )
        return await self._connection.repeatable(self._connection.orchestrator.RegisterDefinition, request)

    async def check(
        self, definition: Saga[Any, Any] | definition_pb2.Definition
    ) -> orchestrator_pb2.CheckDefinitionResponse:
        """What `register` would say of a definition, which is not stored."""
        request = orchestrator_pb2.CheckDefinitionRequest(namespace=self._namespace, definition=_definition(definition))
        return await self._connection.repeatable(self._connection.orchestrator.CheckDefinition, request)

    async def definition(self, name: str, version: int = 0) -> definition_pb2.Definition:
        """A registered definition; without a version, the newest one.

        :raises NotFound: if there is none.
        """
        request = orchestrator_pb2.GetDefinitionRequest(
            namespace=self._namespace, definition=orchestrator_pb2.DefinitionRef(name=name, version=version)
        )
        response = await self._connection.repeatable(self._connection.orchestrator.GetDefinition, request)
        return response.definition

    async def delete_definition(self, name: str, version: int) -> None:
        """Remove a version of a definition.

        :raises FailedPrecondition: if an unfinished saga runs it.
        :raises NotFound: if there is none.
        """
        request = orchestrator_pb2.DeleteDefinitionRequest(
            namespace=self._namespace, definition=orchestrator_pb2.DefinitionRef(name=name, version=version)
        )
        await self._connection.once(self._connection.orchestrator.DeleteDefinition, request)

    async def definitions(self, name: str = "") -> AsyncGenerator[definition_pb2.Definition, None]:
        """The registered definitions by name, newest version first; only those of one name, if it is given."""
        connection = self._connection

        async def fetch(token: str) -> orchestrator_pb2.ListDefinitionsResponse:
            request = orchestrator_pb2.ListDefinitionsRequest(namespace=self._namespace, name=name, page_token=token)
            return await connection.repeatable(connection.orchestrator.ListDefinitions, request)

        async with aclosing(pages(fetch)) as found:
            async for page in found:
                for definition in page.definitions:
                    yield definition

    async def put_participant(self, name: str, address: str, *, concurrency_max: int = 0) -> operator_pb2.Participant:
        """Register a participant that listens at `address`, HOST:PORT, or change where it does.

        `concurrency_max` is how many calls it takes at a time; 0 leaves it to the orchestrator.

        :raises PermissionDenied: if the address is not allowed there.
        """
        participant = operator_pb2.Participant(name=name, address=address, concurrency_max=concurrency_max)
        request = operator_pb2.PutParticipantRequest(participant=participant)
        return (await self._connection.repeatable(self._connection.operator.PutParticipant, request)).participant

    async def participants(self) -> AsyncGenerator[operator_pb2.Participant, None]:
        """The registered participants by name."""
        async with aclosing(participants_at(self._connection)) as found:
            async for participant in found:
                yield participant

    async def replicas(self) -> operator_pb2.ListReplicasResponse:
        """The orchestrators that share the store, the partitions of sagas that each owns, and how late due work is."""
        request = operator_pb2.ListReplicasRequest()
        return await self._connection.repeatable(self._connection.operator.ListReplicas, request)

    async def delete_participant(self, name: str) -> None:
        """Remove a participant.

        :raises FailedPrecondition: if an unfinished saga needs it.
        :raises NotFound: if there is none of that name.
        """
        request = operator_pb2.DeleteParticipantRequest(name=name)
        await self._connection.once(self._connection.operator.DeleteParticipant, request)


async def participants_at(connection: Connection) -> AsyncGenerator[operator_pb2.Participant, None]:
    """Yield the registered participants by name."""

    async def fetch(token: str) -> operator_pb2.ListParticipantsResponse:
        request = operator_pb2.ListParticipantsRequest(page_token=token)
        return await connection.repeatable(connection.operator.ListParticipants, request)

    async with aclosing(pages(fetch)) as found:
        async for page in found:
            for participant in page.participants:
                yield participant


def _definition(definition: Saga[Any, Any] | definition_pb2.Definition) -> definition_pb2.Definition:
    return definition.definition() if isinstance(definition, Saga) else definition
