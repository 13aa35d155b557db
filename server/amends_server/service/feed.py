"""The events of a saga, one after another without gap, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from amends.v1 import orchestrator_pb2
from amends_server.codec import decode, to_wire
from amends_server.config import WAITING_MAX, WATCHERS_MAX
from amends_server.convert.enums import SAGA_STATUS_TO_WIRE
from amends_server.engine.action import CALL_IN_FLIGHT
from amends_server.engine.commands import Complete, Rejected
from amends_server.engine.events import SagaStarted
from amends_server.engine.evolve import begin, evolve
from amends_server.engine.graph import Graph
from amends_server.engine.slim import slim
from amends_server.engine.state import FINAL, SagaStatus, State
from amends_server.errors import EventsNotKept, Overloaded, ShuttingDown
from amends_server.hub import Hub
from amends_server.runner.reader import Reader, View
from amends_server.runner.runner import Runner
from amends_server.store.protocol import Record, SagaKey, Store

EVENTS_PAGE = 200
"""Events read at a time."""

EVENTS_BYTES_MAX = 128 * 1024
"""Of events that a watcher holds while it reads slowly; or one event, if that is larger (I38)."""

POLL_S = 0.25
"""How often the journal of a saga is read that another orchestrator runs, for those who watch it here."""

T = TypeVar("T")


class Feed:
    """Follows journals. Events come from the store, and the hub only says when to look again."""

    def __init__(self, store: Store, reader: Reader, runner: Runner, hub: Hub) -> None:
        self._store = store
        self._reader = reader
        self._runner = runner
        self._hub = hub
        self._streams = 0
        self._waiting = 0

    async def watch(
        self, key: SagaKey, after_sequence: int
    ) -> AsyncGenerator[orchestrator_pb2.WatchSagaResponse, None]:
        """Send the events above `after_sequence`, and end after the final one.

        :raises EventsNotKept: if the saga has not got so far.
        :raises Overloaded: if as many watch as may.
        :raises ShuttingDown: if the process is about to end, after the last event that it can tell of.
        """
        if self._streams >= WATCHERS_MAX:
            raise Overloaded("watchers", WATCHERS_MAX)
        self._streams += 1
        try:
            async with aclosing(self._follow(key, after_sequence)) as responses:
                async for response in responses:
                    yield response
        finally:
            self._streams -= 1

    async def _follow(
        self, key: SagaKey, after_sequence: int
    ) -> AsyncGenerator[orchestrator_pb2.WatchSagaResponse, None]:
        graph = await self._graph(key, after_sequence)
        state: State | None = None
        limit = EVENTS_PAGE
        with self._hub.watch(key) as grown:
            while state is None or not state.final:
                grown.clear()
                records = await self._store.read_records(key, state.sequence if state else 0, limit)
                limit = _shorten(records)
                for record in records:
                    state = _fold_one(graph, state, key, record)
                    if record.sequence > after_sequence:
                        yield orchestrator_pb2.WatchSagaResponse(
                            event=to_wire(key, record), status=SAGA_STATUS_TO_WIRE[state.status]
                        )
                if not records:
                    self._runner.halts.check(key)
                    await self._more(key, grown)

    async def _graph(self, key: SagaKey, after_sequence: int) -> Graph:
        """Return the graph of a saga that has got so far; its state with all its data is not kept while one watches."""
        _, entry, current = await self._reader.read(key)
        if after_sequence > current.sequence:
            raise EventsNotKept(key.saga_id, after_sequence, current.sequence)
        return entry.graph

    async def settled(self, key: SagaKey) -> View:
        """Return a saga once it is final or STUCK.

        :raises Overloaded: if as many wait as may.
        :raises ShuttingDown: if the process is about to end before that.
        :raises SagaHalted: if it will get nowhere in this process.
        """
        with self._room():
            while True:
                view = await self._settled_once(key)
                if view is not None:
                    return view
                self._runner.halts.check(key)
                if self._hub.closed:
                    raise ShuttingDown()

    async def look(self, key: SagaKey) -> View:
        """Return a saga that this process runs.

        :raises SagaHalted: if it will get nowhere in this process.
        """
        self._runner.halts.check(key)
        return await self._runner.read(key)

    async def _settled_once(self, key: SagaKey) -> View | None:
        """Wait until the saga has settled; None if it has to be looked at again."""
        future: asyncio.Future[State | None] = asyncio.get_running_loop().create_future()

        def settled(state: State | None) -> None:
            if not future.done():
                future.set_result(state)

        self._hub.wait(key, settled)
        try:
            self._runner.halts.check(key)
            if await self._goes_on_elsewhere(key):
                await self._news(key, future)
                return None
            view = await self._runner.read(key)
            if view.state.settled:
                return view
            state = await self._news(key, future)
        finally:
            self._hub.leave(key, settled)
        return None if state is None else View(key, view.birth, state)

    async def _goes_on_elsewhere(self, key: SagaKey) -> bool:
        """Tell whether another orchestrator runs the saga and has not settled it: its journal need not be read yet."""
        if self._runner.domain.owns(key):
            return False
        status = (await self._store.get_saga(key)).head.status
        return status not in FINAL and status is not SagaStatus.STUCK

    async def complete(self, key: SagaKey, command: Complete) -> View:
        """Bring the outcome of a step, once no call of it is in flight.

        :raises Rejected: if nobody waits for it.
        :raises Overloaded: if as many wait as may.
        :raises ShuttingDown: if the process is about to end before that.
        """
        with self._room(), self._hub.watch(key) as grown:
            while True:
                grown.clear()
                try:
                    return await self._runner.command(key, command)
                except Rejected as rejected:
                    if rejected.reason != CALL_IN_FLIGHT:
                        raise
                await self._more(key, grown)

    @contextmanager
    def _room(self) -> Generator[None]:
        if self._waiting >= WAITING_MAX:
            raise Overloaded("calls that wait", WAITING_MAX)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _more(self, key: SagaKey, grown: asyncio.Event) -> None:
        if self._hub.closed:  # said by us, or the transport would cut the call off with a status that says nothing
            raise ShuttingDown()
        await self._news(key, grown.wait())

    async def _news(self, key: SagaKey, told: Awaitable[T]) -> T | None:
        """Wait to be told of a saga. Of one that another orchestrator runs nobody tells: None after a while."""
        if self._runner.domain.owns(key):
            return await told
        try:
            return await asyncio.wait_for(told, POLL_S)
        except TimeoutError:
            return None


def _fold_one(graph: Graph, state: State | None, key: SagaKey, record: Record) -> State:
    event = slim(decode(key, record))
    if state is not None:
        return evolve(state, event)
    assert isinstance(event, SagaStarted), "a journal begins with SagaStarted"
    return begin(graph, event)


def _shorten(records: list[Record]) -> int:
    """Let go of the records behind the first ones that fit, and return how many to read the next time."""
    size = 0
    for place, record in enumerate(records):
        size += len(record.body)
        if size > EVENTS_BYTES_MAX:
            del records[max(1, place) :]
            return max(1, place)
    return EVENTS_PAGE
