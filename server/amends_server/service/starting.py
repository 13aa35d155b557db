"""The way of a start: its definition is found or registered, and the runner begins the saga, here or at its owner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amends.v1 import orchestrator_pb2 as pb
from amends_server.catalogue import Entry
from amends_server.clock import Clock
from amends_server.config import STARTS_UNDER_WAY_BYTES_MAX
from amends_server.convert.definition import read_definition
from amends_server.engine.definition import digest as digest_of
from amends_server.engine.state import State
from amends_server.errors import BadField, SagaAlreadyExists, ShuttingDown
from amends_server.ids import new_id
from amends_server.runner.reader import View
from amends_server.runner.runner import Runner
from amends_server.service.definitions import Definitions
from amends_server.service.fields import read_key, read_namespace
from amends_server.service.peers import Here, Peers
from amends_server.service.session import Starter, Told
from amends_server.service.starts import Start, read_start
from amends_server.service.underway import RequestsUnderWay
from amends_server.store.protocol import NotFound, SagaKey, Undefined

if TYPE_CHECKING:
    Metadata = Iterable[tuple[str, str | bytes]]


class Starting:
    """Starts sagas. Without `peers` all of them run here; while `open` is false, none that could begin elsewhere."""

    def __init__(
        self, definitions: Definitions, runner: Runner, clock: Clock, payload_bytes_max: int, peers: Peers | None
    ) -> None:
        self._definitions = definitions
        self._runner = runner
        self._clock = clock
        self._payload_bytes_max = payload_bytes_max
        self._peers = peers
        self._under_way = RequestsUnderWay("bytes of starts under way", STARTS_UNDER_WAY_BYTES_MAX)
        self.open = True

    def begin(self, request: pb.StartSagaRequest, starter: Starter, told: Told) -> bool:
        """Start a saga without waiting for anything. False, and nothing done, where only `start` can do it."""
        entry = self._definitions.kept(read_namespace(request.namespace), request.definition)
        if entry is None or not self.open or not request.saga_id:
            return False
        start, now = read_start(request, request.saga_id, self._payload_bytes_max), self._clock.now()
        if not start.fits(entry):
            return False
        event, birth = start.event(entry, now, starter.principal, starter.traceparent), start.birth(entry, now)
        size_bytes = self._under_way.enter(request)

        def known(outcome: State | Exception) -> None:
            self._under_way.leave(size_bytes)
            told(start.key, birth, outcome)

        begun = False
        try:
            begun = self._runner.begin(start.key, birth, entry, event, known)
        finally:
            if not begun:
                self._under_way.leave(size_bytes)
        return begun

    async def start(self, request: pb.StartSagaRequest, starter: Starter) -> tuple[View, bool]:
        """Start a saga, and return it when that is durable. False: it was there before."""
        with self._under_way.taking(request):
            return await self._start_here(request, starter)

    async def _start_here(self, request: pb.StartSagaRequest, starter: Starter) -> tuple[View, bool]:
        if not (self.open or self._is_the_only_one(request)):
            raise ShuttingDown()
        saga_id = request.saga_id or self._runner.domain.new_id(read_namespace(request.namespace))
        start = read_start(request, saga_id, self._payload_bytes_max)
        try:
            return await self._start(start, request, starter)
        except Undefined:  # removed at this very moment: it is looked for again, or stored again if it is given inline
            return await self._start(start, request, starter)

    def _is_the_only_one(self, request: pb.StartSagaRequest) -> bool:
        """Tell whether nobody else could begin that saga: its id belongs to this process, until that is handed over."""
        return request.saga_id != "" and self._runner.domain.share is not None

    @property
    def _runs_none(self) -> bool:
        """Tell whether all sagas are those of other processes: this one has just joined them, or there are too many."""
        share = self._runner.domain.share
        return self.open and share is not None and not share.owned

    async def start_anywhere(
        self, metadata: Metadata | None, request: pb.StartSagaRequest, starter: Starter
    ) -> tuple[View, bool]:
        """Start a saga where it belongs; without an id here, or where one runs sagas if this process runs none.

        `metadata` is what the caller said of itself.
        """
        with self._under_way.taking(request):
            if not request.saga_id and self._runs_none:
                request.saga_id = new_id(self._clock.now())
            if self._peers is None or not request.saga_id:
                return await self._start_here(request, starter)
            created = await self._peers.start(request, starter.principal, metadata)
            if isinstance(created, Here):
                with created.answering():
                    return await self._start_here(request, starter)
        return await self._runner.read(read_key(request.namespace, request.saga_id)), created

    async def _start(self, start: Start, request: pb.StartSagaRequest, starter: Starter) -> tuple[View, bool]:
        """Start a saga, or return the one that was started with the same content; tell whether it is new."""
        namespace = start.key.namespace
        match request.WhichOneof("definition_source"):
            case "definition":
                entry, reference = await self._definitions.find(namespace, request.definition), request.definition
            case "inline_definition":
                definition, _ = read_definition(request.inline_definition, "inline_definition")
                reference = pb.DefinitionRef(digest=digest_of(definition))
                there = await self._started(start.key) if request.saga_id else None
                if there is not None:  # its participants may be gone by now, and it is answered all the same (I19)
                    return _same(there, start, reference), False
                entry, _, _ = await self._definitions.register(namespace, definition, "inline_definition")
            case _:
                raise BadField("definition", "Name a registered definition, or give one as inline_definition.")
        await self._check_input(start, entry, reference)
        now = self._clock.now()
        event = start.event(entry, now, starter.principal, starter.traceparent)
        try:
            view, created = await self._runner.start(start.key, start.birth(entry, now), entry, event)
        except Undefined:
            self._definitions.forget(entry)
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


def _same(view: View, start: Start, reference: pb.DefinitionRef) -> View:
    if not start.repeats(view.birth, reference):
        raise SagaAlreadyExists(start.key.namespace, start.key.saga_id)
    return view
