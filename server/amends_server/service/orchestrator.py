"""OrchestratorService: what clients call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc as pb_grpc
from amends.v1 import saga_pb2
from amends_server.clock import Clock
from amends_server.config import OUTCOMES_UNDER_WAY_BYTES_MAX, SESSIONS_MAX, STUCK_ON_PAGE_MAX
from amends_server.convert.check import check_to_wire
from amends_server.convert.definition import (
    diagnose,
    problems_to_wire,
    read_definition,
    stored_definition_to_wire,
)
from amends_server.convert.saga import saga_to_wire, stored_saga_to_wire, stuck_saga_to_wire
from amends_server.engine.checks.problem import is_wrong
from amends_server.engine.commands import Cancel
from amends_server.engine.state import SagaStatus
from amends_server.errors import (
    BadField,
    CorruptRecord,
    Overloaded,
    ServiceError,
)
from amends_server.hub import Hub
from amends_server.runner.reader import View
from amends_server.runner.runner import Runner
from amends_server.service.callers import principal
from amends_server.service.completion import read_completion
from amends_server.service.definitions import Definitions
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
from amends_server.service.session import Session, Starter
from amends_server.service.starting import Starting
from amends_server.service.underway import RequestsUnderWay
from amends_server.status import abort, naming_saga, refusals
from amends_server.store.protocol import (
    Cursor,
    NotFound,
    SagaPage,
    Store,
    StoredSaga,
)
from amends_server.tokens import Tokens

log = structlog.stdlib.get_logger(__name__)

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class OrchestratorService(pb_grpc.OrchestratorServiceServicer):
    """The servicer."""

    def __init__(
        self,
        *,
        store: Store,
        definitions: Definitions,
        starting: Starting,
        runner: Runner,
        feed: Feed,
        hub: Hub,
        clock: Clock,
        tokens: Tokens,
        payload_bytes_max: int,
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._starting = starting
        self._runner = runner
        self._feed = feed
        self._hub = hub
        self._sessions: set[Session] = set()
        self._clock = clock
        self._tokens = tokens
        self._payload_bytes_max = payload_bytes_max
        self._outcomes = RequestsUnderWay("bytes of outcomes under way", OUTCOMES_UNDER_WAY_BYTES_MAX)

    # Definitions

    @refusals
    async def RegisterDefinition(
        self, request: pb.RegisterDefinitionRequest, context: Context
    ) -> pb.RegisterDefinitionResponse:
        namespace = read_namespace(request.namespace)
        definition, problems = read_definition(request.definition, "definition")
        entry, created, found = await self._definitions.register(namespace, definition, "definition")
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
            problems += await self._definitions.check(definition)
        return check_to_wire(definition, problems)

    @refusals
    async def GetDefinition(self, request: pb.GetDefinitionRequest, context: Context) -> pb.GetDefinitionResponse:
        entry = await self._definitions.find(read_namespace(request.namespace), request.definition)
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
        await self._definitions.delete(read_namespace(request.namespace), request.definition)
        return pb.DeleteDefinitionResponse()

    # Sagas

    @refusals
    async def StartSaga(self, request: pb.StartSagaRequest, context: Context) -> pb.StartSagaResponse:
        starter = Starter.of(context)
        if request.saga_id:  # it was passed on if it belongs elsewhere
            view, created = await self._starting.start(request, starter)
        else:
            view, created = await self._starting.start_anywhere(context.invocation_metadata(), request, starter)
        if request.wait:
            view = await self._feed.settled(view.key)
        return pb.StartSagaResponse(saga=_to_wire(view), created=created)

    @refusals
    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        key = read_key(request.namespace, request.saga_id)
        with naming_saga(key):
            view = await (self._feed.settled(key) if request.wait else self._runner.read(key))
        return pb.GetSagaResponse(saga=_to_wire(view))

    @refusals
    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        limit = read_page_size(request.page_size)
        place = read_token(request.page_token, request, (int, str))
        after = Cursor(place[0], place[1]) if place else None
        where = read_filter(read_namespace(request.namespace), request.filter, self._clock.now())
        page = _readable(await self._store.list_sagas(where, after, limit))
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
        with naming_saga(key):
            async for response in self._feed.watch(key, request.after_sequence):
                yield response

    @refusals
    async def CancelSaga(self, request: pb.CancelSagaRequest, context: Context) -> pb.CancelSagaResponse:
        key = read_key(request.namespace, request.saga_id)
        command = Cancel(read_reason(request.reason), principal(context))
        with naming_saga(key):
            view = await self._runner.command(key, command)
        if request.wait:
            view = await self._feed.settled(key)
        return pb.CancelSagaResponse(saga=_to_wire(view))

    @refusals
    async def CompleteStep(self, request: pb.CompleteStepRequest, context: Context) -> pb.CompleteStepResponse:
        key = read_key(request.namespace, request.saga_id)
        with naming_saga(key), self._outcomes.taking(request):
            view = await self._runner.read(key)
            command = read_completion(request, view, self._tokens, self._payload_bytes_max)
            return pb.CompleteStepResponse(saga=_to_wire(await self._feed.complete(key, command)))

    async def Session(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[pb.OrchestratorServiceSessionRequest], context: Context
    ) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            await abort(context, Overloaded("sessions", SESSIONS_MAX))
        session = Session(
            context,
            starter=Starter.of(context),
            begin=self._starting.begin,
            start=partial(self._starting.start_anywhere, context.invocation_metadata()),
            look=self._feed.look,
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

    def hold(self) -> None:
        """Start no saga from now on."""
        self._starting.open = False

    def tell_share(self) -> None:
        """Have sessions say which sagas this process runs now."""
        for session in self._sessions:
            session.stir()

    def end_sessions(self) -> None:
        """Have sessions report what is known, and end."""
        for session in self._sessions:
            session.drain()


def _to_wire(view: View) -> Any:
    return saga_to_wire(view.state, view.birth.definition_version)


def _readable(page: SagaPage) -> SagaPage:
    """Return as much of a page as there is time to read the journals of."""
    stuck = [place for place, stored in enumerate(page.sagas) if stored.head.status is SagaStatus.STUCK]
    if len(stuck) <= STUCK_ON_PAGE_MAX:
        return page
    shown = page.sagas[: stuck[STUCK_ON_PAGE_MAX]]
    return SagaPage(shown, Cursor(shown[-1].birth.create_time, shown[-1].key.saga_id))
