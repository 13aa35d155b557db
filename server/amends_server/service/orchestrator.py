"""OrchestratorService: what clients call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

from amends.v1 import definition_pb2
from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc as pb_grpc
from amends_server.catalogue import Catalogue, Entry
from amends_server.clock import Clock
from amends_server.convert.definition import (
    definition_body,
    diagnose,
    problems_to_wire,
    read_definition,
    stored_definition_to_wire,
)
from amends_server.convert.saga import saga_to_wire, stored_saga_to_wire
from amends_server.engine.commands import Cancel
from amends_server.engine.definition import Definition
from amends_server.engine.definition import digest as digest_of
from amends_server.engine.graph import build_graph
from amends_server.engine.plan import compensation_plans
from amends_server.engine.problem import InvalidDefinition, Problem, Severity
from amends_server.errors import (
    BadField,
    DefinitionInUse,
    DefinitionNotFound,
    NotServed,
    SagaAlreadyExists,
    SagaNotFound,
    ShuttingDown,
)
from amends_server.ids import new_id
from amends_server.participants import Participants
from amends_server.reader import View
from amends_server.runner import Runner
from amends_server.service.feed import Feed
from amends_server.service.fields import (
    principal,
    read_key,
    read_namespace,
    read_page_size,
    read_reason,
    read_token,
    traceparent,
    write_token,
)
from amends_server.service.filters import read_filter
from amends_server.service.starts import read_start
from amends_server.status import refusals
from amends_server.store.protocol import Cursor, InUse, NotFound, Store, StoredDefinition

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class OrchestratorService(pb_grpc.OrchestratorServiceServicer):
    """The servicer. While `takes_starts` is false, no saga is started."""

    def __init__(
        self,
        *,
        store: Store,
        catalogue: Catalogue,
        participants: Participants,
        runner: Runner,
        feed: Feed,
        clock: Clock,
        payload_bytes_max: int,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._participants = participants
        self._runner = runner
        self._feed = feed
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self.takes_starts = True

    # Definitions

    @refusals
    async def RegisterDefinition(
        self, request: pb.RegisterDefinitionRequest, context: Context
    ) -> pb.RegisterDefinitionResponse:
        entry, created, warnings = await self._register(
            read_namespace(request.namespace), request.definition, "definition"
        )
        return pb.RegisterDefinitionResponse(
            definition=stored_definition_to_wire(entry.stored), diagnostics=problems_to_wire(warnings), created=created
        )

    @refusals
    async def CheckDefinition(self, request: pb.CheckDefinitionRequest, context: Context) -> pb.CheckDefinitionResponse:
        read_namespace(request.namespace)
        definition, problems = diagnose(request.definition)
        if not _errors(problems):
            problems += await self._participants.check(definition)
        response = pb.CheckDefinitionResponse(diagnostics=problems_to_wire(_worst_first(problems)))
        if not _errors(problems):
            for failed, undone in compensation_plans(build_graph(definition, "")):
                response.plans.add(failed_step=failed, compensated_steps=undone)
        return response

    @refusals
    async def GetDefinition(self, request: pb.GetDefinitionRequest, context: Context) -> pb.GetDefinitionResponse:
        entry = await self._find(read_namespace(request.namespace), request.definition)
        return pb.GetDefinitionResponse(definition=stored_definition_to_wire(entry.stored))

    @refusals
    async def ListDefinitions(self, request: pb.ListDefinitionsRequest, context: Context) -> pb.ListDefinitionsResponse:
        limit = read_page_size(request.page_size)
        place = read_token(request.page_token, request, (str, int))
        after = (place[0], place[1]) if place else None
        namespace = read_namespace(request.namespace)
        found = await self._store.list_definitions(namespace, request.name, after, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return pb.ListDefinitionsResponse(
            definitions=[stored_definition_to_wire(stored) for stored in found[:limit]],
            next_page_token=write_token([last.name, last.version], request) if last else "",
        )

    @refusals
    async def DeleteDefinition(
        self, request: pb.DeleteDefinitionRequest, context: Context
    ) -> pb.DeleteDefinitionResponse:
        namespace = read_namespace(request.namespace)
        if not request.definition.version and not request.definition.digest:
            raise BadField(
                "definition.version", "Name the version, or the digest: a name alone is not enough to delete."
            )
        stored = (await self._find(namespace, request.definition)).stored
        try:
            await self._catalogue.delete(namespace, stored.digest)
        except InUse:
            raise DefinitionInUse(namespace, stored.name, stored.version) from None
        return pb.DeleteDefinitionResponse()

    # Sagas

    @refusals
    async def StartSaga(self, request: pb.StartSagaRequest, context: Context) -> pb.StartSagaResponse:
        if not self.takes_starts:
            raise ShuttingDown()
        start = read_start(request, request.saga_id or new_id(self._clock.now()), self._payload_bytes_max)
        entry, reference = await self._definition_of(start.key.namespace, request)
        now = self._clock.now()
        event = start.event(entry, now, principal(context), traceparent(context))
        view, created = await self._runner.start(start.key, start.birth(entry, now), entry, event)
        if not created and not start.repeats(view.birth, reference):
            raise SagaAlreadyExists(start.key.namespace, start.key.saga_id)
        if request.wait:
            view = await self._feed.settled(start.key)
        return pb.StartSagaResponse(saga=_to_wire(view), created=created)

    @refusals
    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        key = read_key(request.namespace, request.saga_id)
        try:
            view = await (self._feed.settled(key) if request.wait else self._runner.read(key))
        except NotFound:
            raise SagaNotFound(key.namespace, key.saga_id) from None
        return pb.GetSagaResponse(saga=_to_wire(view))

    @refusals
    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        limit = read_page_size(request.page_size)
        place = read_token(request.page_token, request, (int, str))
        after = Cursor(place[0], place[1]) if place else None
        where = read_filter(read_namespace(request.namespace), request.filter, self._clock.now())
        found = await self._store.list_sagas(where, after, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return pb.ListSagasResponse(
            sagas=[stored_saga_to_wire(stored) for stored in found[:limit]],
            next_page_token=write_token([last.birth.create_time, last.key.saga_id], request) if last else "",
        )

    @refusals
    async def WatchSaga(
        self, request: pb.WatchSagaRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSagaResponse, None]:
        key = read_key(request.namespace, request.saga_id)
        if request.after_sequence < 0:
            raise BadField("after_sequence", "It must not be negative; 0 begins with the first event.")
        try:
            async for response in self._feed.watch(key, request.after_sequence):
                yield response
        except NotFound:
            raise SagaNotFound(key.namespace, key.saga_id) from None

    @refusals
    async def CancelSaga(self, request: pb.CancelSagaRequest, context: Context) -> pb.CancelSagaResponse:
        key = read_key(request.namespace, request.saga_id)
        try:
            view = await self._runner.command(key, Cancel(read_reason(request.reason), principal(context)))
        except NotFound:
            raise SagaNotFound(key.namespace, key.saga_id) from None
        if request.wait:
            view = await self._feed.settled(key)
        return pb.CancelSagaResponse(saga=_to_wire(view))

    @refusals
    async def CompleteStep(self, request: pb.CompleteStepRequest, context: Context) -> pb.CompleteStepResponse:
        raise NotServed("CompleteStep")

    @refusals
    async def Session(
        self, request_iterator: AsyncIterator[pb.OrchestratorServiceSessionRequest], context: Context
    ) -> AsyncGenerator[pb.OrchestratorServiceSessionResponse, None]:
        raise NotServed("OrchestratorService.Session")
        yield pb.OrchestratorServiceSessionResponse()

    async def _definition_of(self, namespace: str, request: pb.StartSagaRequest) -> tuple[Entry, pb.DefinitionRef]:
        match request.WhichOneof("definition_source"):
            case "definition":
                return await self._find(namespace, request.definition), request.definition
            case "inline_definition":
                entry, _, _ = await self._register(namespace, request.inline_definition, "inline_definition")
                return entry, pb.DefinitionRef(digest=entry.stored.digest)
            case _:
                raise BadField("definition", "Name a registered definition, or give one as inline_definition.")

    async def _find(self, namespace: str, reference: pb.DefinitionRef) -> Entry:
        if not reference.name and not reference.digest:
            raise BadField("definition.name", "Name the definition, or give its digest.")
        if reference.version < 0:
            raise BadField("definition.version", "It must not be negative; 0 is the newest.")
        name, version, digest = reference.name, reference.version, reference.digest
        try:
            return await self._catalogue.find(namespace, name=name, version=version, digest=digest)
        except NotFound:
            raise DefinitionNotFound(namespace, name=name, version=version, digest=digest) from None

    async def _register(
        self, namespace: str, message: definition_pb2.Definition, field: str
    ) -> tuple[Entry, bool, list[Problem]]:
        definition, problems = read_definition(message, field)
        found = await self._participants.check(definition)
        if _errors(found):
            raise InvalidDefinition([_under(field, problem) for problem in found])
        entry, created = await self._catalogue.register(self._stored(namespace, definition))
        return entry, created, [*problems, *found]

    def _stored(self, namespace: str, definition: Definition) -> StoredDefinition:
        return StoredDefinition(
            namespace=namespace,
            name=definition.name,
            version=0,
            digest=digest_of(definition),
            body=definition_body(definition),
            create_time=self._clock.now(),
        )


def _to_wire(view: View) -> Any:
    return saga_to_wire(view.state, view.birth.definition_version)


def _errors(problems: list[Problem]) -> bool:
    return any(problem.severity is Severity.ERROR for problem in problems)


def _worst_first(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)


def _under(field: str, problem: Problem) -> Problem:
    return Problem(problem.severity, f"{field}.{problem.field}", problem.code, problem.message)
