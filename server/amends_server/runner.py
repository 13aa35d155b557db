"""Runs sagas: takes commands, appends what is decided to the journal, and sends what is durable to participants.

Hot path: `_told` → `_decide` → `_record` → (journal) → `_recorded` → `_send_owed`, without a task or an await.
Decisions are made at once on the state in memory and go to the journal in their order; whatever depends on them
(calls, answers, watchers) waits in `_recorded` until they are on disk.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from functools import partial

import structlog

from amends_server.active import ActiveSaga
from amends_server.catalogue import Entry
from amends_server.clock import Clock
from amends_server.codec import encode
from amends_server.engine.commands import Command, Recover, Refused, Settle, Verdict, Wake
from amends_server.engine.decide import Decision, decide, start
from amends_server.engine.due import CallOrder, OwedCall, due, order_call
from amends_server.engine.events import SagaStarted
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US, Time
from amends_server.engine.state import State
from amends_server.errors import Overloaded, SagaHalted, ServiceError
from amends_server.hub import Hub
from amends_server.journal import Journal
from amends_server.reader import Reader, View
from amends_server.store.protocol import AlreadyExists, Append, Birth, Head, NotFound, SagaKey, StoreError, Unavailable
from amends_server.tasks import Tasks
from amends_server.transport.requests import Origin

Send = Callable[[str, CallOrder, Origin, Callable[[Verdict], None]], None]
"""Sends an attempt to the participant of that name, and calls back, later, with what it told."""

KEEP_US = 5 * SECOND_US
"""A saga whose next retry or deadline is further off is dropped from memory, and found again by its due time."""

NOT_SENT = Error("NOT_SENT", "The saga turned back before the call was sent.")

log = structlog.stdlib.get_logger(__name__)


class Runner:
    """The sagas that this process runs. Meant for one event loop."""

    def __init__(
        self,
        *,
        journal: Journal,
        reader: Reader,
        send: Send,
        hub: Hub,
        clock: Clock,
        epoch: int,
        active_max: int,
    ) -> None:
        self._journal = journal
        self._reader = reader
        self._send = send
        self._hub = hub
        self._clock = clock
        self._epoch = epoch
        self._active_max = active_max
        self._active: dict[SagaKey, ActiveSaga] = {}
        self._loading: dict[SagaKey, asyncio.Task[ActiveSaga]] = {}
        self._broken: dict[SagaKey, ActiveSaga] = {}
        self._halted: dict[SagaKey, str] = {}
        self._late = Tasks()
        self._holding = False
        self._settled = asyncio.Event()
        self.broke = asyncio.Event()
        """Set while there are sagas that could not be recorded, so that somebody calls `mend`."""

    @property
    def active_count(self) -> int:
        """Sagas in memory."""
        return len(self._active)

    @property
    def halted(self) -> dict[SagaKey, str]:
        """Sagas that this process cannot carry on, and why: corrupt records, or bugs."""
        return dict(self._halted)

    async def start(self, key: SagaKey, birth: Birth, entry: Entry, started: SagaStarted) -> tuple[View, bool]:
        """Start a saga, and return it when its start is durable. False: one of that name was there before.

        :raises Overloaded: if this process runs as many sagas as it may.
        :raises Unavailable: if the journal cannot be written; whether the saga was started is then unknown.
        """
        while key in self._loading:  # a saga is in memory once: whoever takes it there comes first
            await asyncio.wait([self._loading[key]])
        if key in self._active:
            await self._wait_for_birth(key)
            return await self._read_started(key), False
        if len(self._active) >= self._active_max:
            raise Overloaded("sagas running", self._active_max)
        decision = start(entry.graph, started)
        saga = self._make(key, birth, entry.graph, decision.state)
        self._record(saga, decision, None, birth)
        self._active[key] = saga
        try:
            return View(key, birth, await saga.follow(1)), True
        except AlreadyExists:
            return await self.read(key), False

    async def _read_started(self, key: SagaKey) -> View:
        try:
            return await self.read(key)
        except NotFound:  # whoever repeats a start that failed must not take that for an answer
            raise Unavailable("The saga's start was not recorded: try again when the store is back.") from None

    async def command(self, key: SagaKey, command: Command) -> View:
        """Carry a command out, and return the saga when what follows from it is durable.

        :raises NotFound: if there is no such saga.
        :raises amends_server.engine.commands.Rejected: if its state does not allow the command.
        :raises Unavailable: if the journal cannot be written; whether it was carried out is then unknown.
        """
        saga = await self._get(key)
        state = self._decide(saga, command)
        view = View(key, saga.birth, await saga.follow(state.sequence))
        self._rest(saga)
        return view

    async def read(self, key: SagaKey) -> View:
        """Return a saga as it durably stands, without taking it into memory.

        :raises NotFound: if there is no such saga.
        """
        saga = self._active.get(key)
        if saga is not None and saga.durable is not None:
            return View(key, saga.birth, saga.durable)
        row, _, state = await self._reader.read(key)
        return View(key, row.birth, state)

    async def wake(self, key: SagaKey) -> None:
        """Have a saga do what is due; one whose orchestrator is gone is recovered. Harmless if nothing is due.

        :raises StoreError: if it cannot be read.
        :raises SagaHalted: if this process cannot carry it on.
        """
        saga = await self._get(key)
        self._wake(saga)
        self._rest(saga)

    def runs(self, key: SagaKey) -> bool:
        """Tell whether the saga is in memory, and more than a wish, or known to be beyond repair."""
        saga = self._active.get(key)
        return (saga is not None and saga.durable is not None) or key in self._halted

    async def mend(self) -> None:
        """Read again the sagas of which an append failed, and go on with them.

        :raises Unavailable: if the store still cannot be read.
        """
        for saga in list(self._broken.values()):
            if not saga.appending:
                await self._mend(saga)
        if not self._broken:
            self.broke.clear()

    def hold(self) -> None:
        """From now on record outcomes and dispatch nothing: the process is about to end."""
        self._holding = True

    async def settle_calls(self) -> None:
        """Wait until all calls that were sent are answered and recorded."""
        while any(saga.calls or saga.appending for saga in self._active.values()):
            self._settled.clear()
            await self._settled.wait()

    # Decide, record, send

    def _decide(self, saga: ActiveSaga, command: Command) -> State:
        if saga.state is None:
            raise Unavailable("The saga's journal could not be written: try again when the store is back.")
        decision = decide(saga.state, command, self._clock.now(), hold=self._holding)
        if decision.events:
            self._record(saga, decision, command if isinstance(command, Settle) else None)
        return decision.state

    def _record(self, saga: ActiveSaga, decision: Decision, settle: Settle | None, birth: Birth | None = None) -> None:
        first = decision.state.sequence - len(decision.events) + 1
        records = [encode(event, first + i) for i, event in enumerate(decision.events)]
        saga.state = decision.state
        saga.appending += 1
        append = Append(key=saga.key, records=records, head=self._head(decision.state), birth=birth)
        self._journal.append(append, partial(self._recorded, saga, decision.state, settle))

    def _head(self, state: State) -> Head:
        return Head(
            sequence=state.sequence,
            epoch=self._epoch,
            status=state.status,
            paused=state.paused,
            due_time=due(state).next_time,
            update_time=state.update_time,
            end_time=state.update_time if state.final else None,
        )

    def _recorded(self, saga: ActiveSaga, state: State, settle: Settle | None, error: StoreError | None) -> None:
        saga.appending -= 1
        if error is not None:
            self._break(saga, settle, error)
            return
        saga.advance(state)
        self._hub.publish(saga.key)
        self._guard(saga, partial(self._send_owed, saga, state))

    def _send_owed(self, saga: ActiveSaga, durable: State) -> None:
        """Send the calls whose intent is durable by now, but for those that are out or were answered already."""
        owed_calls = due(durable).calls
        if saga.state is None or not owed_calls:
            return
        still_open = owed_calls if saga.state is durable else due(saga.state).calls
        for owed in owed_calls:
            if owed in still_open and owed not in saga.calls:
                self._send_one(saga, durable, owed)

    def _send_one(self, saga: ActiveSaga, durable: State, owed: OwedCall) -> None:
        if saga.state is not None and saga.state.going_back and not owed.compensation:
            self._decide(saga, saga.settle(owed, Refused(NOT_SENT)))  # the turning back may be durable by now
            return
        saga.calls.add(owed)
        order = order_call(durable, owed)
        self._send(order.node.step.participant, order, saga.origin, partial(self._told, saga, owed))

    def _told(self, saga: ActiveSaga, owed: OwedCall, verdict: Verdict) -> None:
        settle = saga.settle(owed, verdict)
        if owed not in saga.calls:  # its time was up, and the saga went on without it
            self._late.hold(self._settle_late(saga.key, settle))
            return
        saga.calls.discard(owed)
        if saga.state is None:
            saga.unrecorded.append(settle)
        else:
            self._guard(saga, partial(self._decide, saga, settle))

    async def _settle_late(self, key: SagaKey, settle: Settle) -> None:
        """Record an answer that nobody waits for any more; the saga may have been dropped from memory meanwhile."""
        try:
            await self.command(key, settle)
        except (StoreError, ServiceError) as error:  # it changes nothing, so that nothing hangs on it
            log.info("late_reply_not_recorded", namespace=key.namespace, saga_id=key.saga_id, error=str(error))

    def _guard(self, saga: ActiveSaga, act: Callable[[], object]) -> None:
        """Do something with a saga so that a bug stops it and no other (I34)."""
        try:
            act()
        except Exception as bug:
            self._halt(saga.key, bug)
            saga.distrust(SagaHalted(saga.key.namespace, saga.key.saga_id, type(bug).__name__))
            self._active.pop(saga.key, None)
        self._rest(saga)

    def _halt(self, key: SagaKey, bug: Exception) -> None:
        self._halted[key] = type(bug).__name__
        stack = "".join(traceback.format_tb(bug.__traceback__))  # without the text, which may quote payloads (I46)
        error = type(bug).__name__
        log.error("saga_halted", namespace=key.namespace, saga_id=key.saga_id, error=error, stack=stack)

    # Rest and wake

    def _rest(self, saga: ActiveSaga) -> None:
        """Drop a saga that nothing in this process waits for; have one that is due soon wake up."""
        if not saga.calls and not saga.appending:
            self._settled.set()
        if saga.state is None or self._active.get(saga.key) is not saga:
            return
        due_time = due(saga.state).next_time
        soon = due_time is not None and due_time - self._clock.now() <= KEEP_US and not self._holding
        saga.disarm()
        if soon and due_time is not None:
            self._arm(saga, due_time)
        elif saga.idle:
            del self._active[saga.key]

    def _arm(self, saga: ActiveSaga, due_time: Time) -> None:
        delay_s = max(0, due_time - self._clock.now()) / SECOND_US
        saga.timer = asyncio.get_running_loop().call_later(delay_s, self._ring, saga)

    def _ring(self, saga: ActiveSaga) -> None:
        saga.timer = None
        if self._active.get(saga.key) is saga:
            self._wake(saga)

    def _wake(self, saga: ActiveSaga) -> None:
        if saga.state is not None and not self._holding:
            self._guard(saga, partial(self._decide, saga, Wake()))

    # Load and mend

    async def _get(self, key: SagaKey) -> ActiveSaga:
        """Return a saga in memory, taking it there if it is not."""
        if key in self._halted:
            raise SagaHalted(key.namespace, key.saga_id, self._halted[key])
        if key in self._active:
            await self._wait_for_birth(key)
        return self._active.get(key) or await self._load(key)

    async def _wait_for_birth(self, key: SagaKey) -> None:
        """Wait until a saga in memory is more than a wish: a start that is a repetition leaves no trace."""
        while (saga := self._active.get(key)) is not None and saga.durable is None and saga.state is not None:
            await asyncio.gather(saga.follow(1), return_exceptions=True)  # of a failure, `state` tells

    async def _load(self, key: SagaKey) -> ActiveSaga:
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._activate(key))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)  # several may wait, and one that is cancelled does not speak for the others

    async def _activate(self, key: SagaKey) -> ActiveSaga:
        try:
            row, entry, state = await self._reader.read(key)
        except StoreError:
            raise
        except Exception as bug:
            self._halt(key, bug)
            raise SagaHalted(key.namespace, key.saga_id, self._halted[key]) from bug
        saga = self._make(key, row.birth, entry.graph, state)
        saga.durable = state
        self._active[key] = saga
        lost = row.head.epoch != self._epoch and not state.final
        self._guard(saga, partial(self._decide, saga, Recover()) if lost else partial(self._send_owed, saga, state))
        return saga

    def _make(self, key: SagaKey, birth: Birth, graph: Graph, state: State) -> ActiveSaga:
        origin = Origin(
            started=state.started,
            definition_name=birth.definition_name,
            definition_version=birth.definition_version,
            epoch=self._epoch,
        )
        return ActiveSaga(key=key, birth=birth, graph=graph, origin=origin, state=state)

    def _break(self, saga: ActiveSaga, settle: Settle | None, error: StoreError) -> None:
        """Stop building on a saga of which an append failed. It is read again when the store is back."""
        saga.disarm()
        saga.distrust(error)
        if settle is not None:
            saga.unrecorded.append(settle)
        if self._active.get(saga.key) is not saga:
            return
        if isinstance(error, AlreadyExists):  # the start was a repetition: this saga never was
            del self._active[saga.key]
        else:
            log.warning("saga_not_recorded", namespace=saga.key.namespace, saga_id=saga.key.saga_id, error=str(error))
            self._broken[saga.key] = saga
            self.broke.set()

    async def _mend(self, saga: ActiveSaga) -> None:
        if saga.durable is None:
            await self._mend_start(saga)
        else:
            try:
                row, _, state = await self._reader.read(saga.key)
            except StoreError:
                raise
            except Exception as bug:
                self._halt(saga.key, bug)
                self._active.pop(saga.key, None)
            else:
                self._mend_from(saga, row.head.epoch, state)
        if self._broken.get(saga.key) is saga:
            del self._broken[saga.key]

    async def _mend_start(self, saga: ActiveSaga) -> None:
        """Forget a start: only the store knows whether it went well, and what else was started under that id."""
        if self._active.get(saga.key) is saga:
            del self._active[saga.key]
        try:
            await self.wake(saga.key)
        except NotFound:
            log.info("start_not_recorded", namespace=saga.key.namespace, saga_id=saga.key.saga_id)
        except SagaHalted as halt:
            log.warning("saga_skipped", namespace=saga.key.namespace, saga_id=saga.key.saga_id, error=str(halt))

    def _mend_from(self, saga: ActiveSaga, epoch: int, state: State) -> None:
        saga.state = state
        saga.advance(state)
        self._hub.publish(saga.key)
        unrecorded, saga.unrecorded = saga.unrecorded, []
        if epoch != self._epoch:  # nothing of this process was recorded yet: what is open was sent by the last one
            self._guard(saga, partial(self._decide, saga, Recover()))
        else:
            self._guard(saga, partial(self._go_on, saga, state, unrecorded))

    def _go_on(self, saga: ActiveSaga, state: State, unrecorded: list[Settle]) -> None:
        """Record outcomes that are not in the journal yet; what is open besides was never sent, and is sent now."""
        still_open = {(state.graph.nodes[o.index].step.id, o.compensation, o.attempt) for o in due(state).calls}
        for settle in unrecorded:
            if (settle.step, settle.compensation, settle.attempt) in still_open:
                self._decide(saga, settle)
        self._send_owed(saga, state)
