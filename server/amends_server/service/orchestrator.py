"""OrchestratorService: what clients call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc as pb_grpc
from amends.v1 import saga_pb2
from amends_server.catalogue import Catalogue, Entry
from amends_server.clock import Clock
from amends_server.config import SESSIONS_MAX
from amends_server.convert.check import check_to_wire
from amends_server.convert.definition import (
    definition_body,
    diagnose,
    problems_to_wire,
    read_definition,
    stored_definition_to_wire,
)
from amends_server.convert.saga import saga_to_wire, stored_saga_to_wire, stuck_saga_to_wire
from amends_server.engine.commands import Cancel
from amends_server.engine.definition import Definition
from amends_server.engine.definition import digest as digest_of
from amends_server.engine.problem import InvalidDefinition, Problem, is_wrong
from amends_server.engine.state import SagaStatus
from amends_server.errors import (
    BadField,
    CorruptRecord,
    DefinitionInUse,
    DefinitionNotFound,
    Overloaded,
    SagaAlreadyExists,
    SagaNotFound,
    ServiceError,
    ShuttingDown,
)
from amends_server.hub import Hub
from amends_server.participants import Participants
from amends_server.runner.reader import View
from amends_server.runner.runner import Runner
from amends_server.service.callers import principal
from amends_server.service.completion import read_completion
from amends_server.service.feed import Feed
from amends_server.service.fields import (
    read_key,
    read_namespace,
    read_page_size,
    read_reason,
    read_token,
    write_token,
)
from amends_server.service.filters import read_filter
from amends_server.service.peers import Peers
from amends_server.service.session import Session, Starter, Told
from amends_server.service.starts import Start, read_start
from amends_server.status import abort, refusals
from amends_server.store.protocol import (
    Cursor,
    InUse,
    NotFound,
    SagaKey,
    Store,
    StoredDefinition,
    StoredSaga,
    Undefined,
)
from amends_server.tokens import Tokens

log = structlog.stdlib.get_logger(__name__)

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
        hub: Hub,
        clock: Clock,
        tokens: Tokens,
        payload_bytes_max: int,
        peers: Peers | None = None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._participants = participants
        self._runner = runner
        self._feed = feed
        self._hub = hub
        self._peers = peers
        self._sessions: set[Session] = set()
        self._clock = clock
        self._tokens = tokens
        self._payload_bytes_max = payload_bytes_max
        self.takes_starts = True

    # Definitions

    @refusals
    async def RegisterDefinition(
        self, request: pb.RegisterDefinitionRequest, context: Context
    ) -> pb.RegisterDefinitionResponse:
        namespace = read_namespace(request.namespace)
        definition, problems = read_definition(request.definition, "definition")
        found = await self._check_participants(definition, "definition")
        entry, created = await self._catalogue.register(self._stored(namespace, definition))
        return pb.RegisterDefinitionResponse(
            definition=stored_definition_to_wire(entry.stored),
            diagnostics=problems_to_wire([*problems, *found]),
            created=created,
        )

    @refusals
    async def CheckDefinition(self, request: pb.CheckDefinitionRequest, context: Context) -> pb.CheckDefinitionResponse:
        read_namespace(request.namespace)
        definition, problems = diagnose(request.definition)
        if not is_wrong(problems):
            problems += await self._participants.check(definition)
        return check_to_wire(definition, problems)

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
        view, created = await self._start(request, Starter.of(context))
        if request.wait:
            view = await self._feed.settled(view.key)
        return pb.StartSagaResponse(saga=_to_wire(view), created=created)

    async def _start(self, request: pb.StartSagaRequest, starter: Starter) -> tuple[View, bool]:
        """Start a saga, and return it when that is durable. False: it was there before."""
        if not self.takes_starts:
            raise ShuttingDown()
        saga_id = request.saga_id or self._runner.domain.new_id(read_namespace(request.namespace))
        start = read_start(request, saga_id, self._payload_bytes_max)
        try:
            return await self._start_one(start, request, starter)
        except Undefined:  # removed at this very moment: it is looked for again, or stored again if it is given inline
            return await self._start_one(start, request, starter)

    async def _start_anywhere(
        self, context: Context, request: pb.StartSagaRequest, starter: Starter
    ) -> tuple[View, bool]:
        """Start a saga where it belongs."""
        metadata = context.invocation_metadata()
        created = None if self._peers is None else await self._peers.start(request, starter.principal, metadata)
        if created is None:
            return await self._start(request, starter)
        return await self._runner.read(read_key(request.namespace, request.saga_id)), created

    def _begin(self, request: pb.StartSagaRequest, starter: Starter, told: Told) -> bool:
        """Start a saga without waiting for anything. False, and nothing done, where only `_start` can do it."""
        entry = self._catalogue.kept(read_namespace(request.namespace), request.definition.digest)
        if entry is None or not self.takes_starts or not request.saga_id:
            return False
        start, now = read_start(request, request.saga_id, self._payload_bytes_max), self._clock.now()
        if not start.fits(entry):
            return False
        event = start.event(entry, now, starter.principal, starter.traceparent)
        return self._runner.begin(
            start.key, birth := start.birth(entry, now), entry, event, partial(told, start.key, birth)
        )

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
        page = await self._store.list_sagas(where, after, limit)
        return pb.ListSagasResponse(
            sagas=[await self._listed(stored) for stored in page.sagas],
            next_page_token=write_token([page.after.create_time, page.after.saga_id], request) if page.after else "",
        )

    async def _listed(self, stored: StoredSaga) -> saga_pb2.Saga:
        """Return the view of a saga in lists; the journal is read only of those that an operator has to look at."""
        if stored.head.status is not SagaStatus.STUCK:
            return stored_saga_to_wire(stored)
        try:
            return stuck_saga_to_wire(stored, (await self._runner.read(stored.key)).state)
        except (NotFound, CorruptRecord) as problem:  # one saga must not hide the others
            log.warning("stuck_saga_not_read", saga_id=stored.key.saga_id, error=str(problem))
            return stored_saga_to_wire(stored)

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
        key = read_key(request.namespace, request.saga_id)
        try:
            view = await self._runner.read(key)
            command = read_completion(request, view, self._tokens, self._payload_bytes_max)
            return pb.CompleteStepResponse(saga=_to_wire(await self._feed.complete(key, command)))
        except NotFound:
            raise SagaNotFound(key.namespace, key.saga_id) from None

    async def Session(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[pb.OrchestratorServiceSessionRequest], context: Context
    ) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            await abort(context, Overloaded("sessions", SESSIONS_MAX))
        session = Session(
            context,
            starter=Starter.of(context),
            begin=self._begin,
            start=partial(self._start_anywhere, context),
            domain=self._runner.domain,
            hub=self._hub,
        )
        self._sessions.add(session)
        try:
            await session.run()
        except ServiceError as refusal:
            await abort(context, refusal)
        finally:
            self._sessions.discard(session)

    def end_sessions(self) -> None:
        """Have sessions report what is known, and end."""
        for session in self._sessions:
            session.drain()

    async def _start_one(self, start: Start, request: pb.StartSagaRequest, starter: Starter) -> tuple[View, bool]:
        """Start a saga, or return the one that was started with the same content; tell whether it is new."""
        match request.WhichOneof("definition_source"):
            case "definition":
                entry, reference = await self._find(start.key.namespace, request.definition), request.definition
            case "inline_definition":
                definition, _ = read_definition(request.inline_definition, "inline_definition")
                reference = pb.DefinitionRef(digest=digest_of(definition))
                there = await self._started(start.key) if request.saga_id else None
                if there is not None:  # its participants may be gone by now, and it is answered all the same (I19)
                    return _same(there, start, reference), False
                await self._check_participants(definition, "inline_definition")
                entry, _ = await self._catalogue.register(self._stored(start.key.namespace, definition))
            case _:
                raise BadField("definition", "Name a registered definition, or give one as inline_definition.")
        await self._check_input(start, entry, reference)
        now = self._clock.now()
        event = start.event(entry, now, starter.principal, starter.traceparent)
        try:
            view, created = await self._runner.start(start.key, start.birth(entry, now), entry, event)
        except Undefined:
            self._catalogue.forget(start.key.namespace, entry.stored.digest)
            raise
        return (view if created else _same(view, start, reference)), created

    async def _check_input(self, start: Start, entry: Entry, reference: pb.DefinitionRef) -> None:
        """Refuse an input that the definition's schema does not allow, unless the start is a repetition.

        By then a newer version of the definition may be stricter.
        """
        try:
            start.check_input(entry)
        except BadField:
            known = await self._started(start.key)
            if known is None or not start.repeats(known.birth, reference):
                raise

    async def _started(self, key: SagaKey) -> View | None:
        try:
            return await self._runner.read(key)
        except NotFound:
            return None

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

    async def _check_participants(self, definition: Definition, field: str) -> list[Problem]:
        found = await self._participants.check(definition)
        if is_wrong(found):
            raise InvalidDefinition([replace(problem, field=f"{field}.{problem.field}") for problem in found])
        return found

    def _stored(self, namespace: str, definition: Definition) -> StoredDefinition:
        return StoredDefinition(
            namespace=namespace,
            name=definition.name,
            version=0,
            digest=digest_of(definition),
            body=definition_body(definition),
            create_time=self._clock.now(),
        )


def _same(view: View, start: Start, reference: pb.DefinitionRef) -> View:
    if not start.repeats(view.birth, reference):
        raise SagaAlreadyExists(start.key.namespace, start.key.saga_id)
    return view


def _to_wire(view: View) -> Any:
    return saga_to_wire(view.state, view.birth.definition_version)
