"""Runs sagas: takes commands, appends what is decided to the journal, and sends what is durable to participants.

Hot path: `_told` → `_decide` → `_record` → (journal) → `_recorded` → `_send`, without a task or an await.
Decisions are made at once on the state in memory and go to the journal in their order; whatever depends on them
(calls, answers, watchers) waits in `_recorded` until they are on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TypeVarTuple

import structlog

from amends_server.catalogue import Entry
from amends_server.clock import Clock
from amends_server.config import KEEP_CROWDED_S, KEEP_S
from amends_server.engine.action import raise_if_late
from amends_server.engine.commands import Command, NotSent, Rejected, Settle, Verdict, Wake
from amends_server.engine.decide import Decision, decide, start
from amends_server.engine.due import CallOrder, OwedCall, dispatched, order_call, owed_calls
from amends_server.engine.events import SagaStarted
from amends_server.engine.policy import SECOND_US
from amends_server.engine.state import State
from amends_server.errors import NotOwned, SagaHalted
from amends_server.hub import Hub
from amends_server.journal import Journal
from amends_server.runner.active import NOT_SENT, NOT_WANTED, ActiveSaga, Follower, make_active
from amends_server.runner.domain import Domain
from amends_server.runner.halted import HaltedSagas
from amends_server.runner.loading import Loading
from amends_server.runner.mending import Mender
from amends_server.runner.places import Places
from amends_server.runner.reader import Reader, View
from amends_server.store.protocol import AlreadyExists, Birth, NotFound, SagaKey, Stale, StoreError, Unavailable
from amends_server.tokens import Tokens
from amends_server.transport.attempts import Obstacle, Told
from amends_server.transport.requests import Origin

Args = TypeVarTuple("Args")

Send = Callable[[str, CallOrder, Origin, Told, Obstacle], None]
"""Sends an attempt to the participant of that name, if nothing is in its way then, and calls back, later."""

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
        domain: Domain,
        active_max: int,
        tokens: Tokens | None = None,
    ) -> None:
        self._journal, self._reader, self._send_call = journal, reader, send
        self._hub, self._clock = hub, clock
        self.domain, self._tokens = domain, tokens
        self.places = Places(active_max)
        self._loading, self.halts = Loading(self._activate), HaltedSagas()
        self._pins, self._unsent = dict[SagaKey, int](), set[SagaKey]()
        self._settled = asyncio.Event()
        self.mender = Mender(reader, resume=self._resume, rewake=self._rewake, halt=self._halt)

    @property
    def active_count(self) -> int:
        """Sagas in memory."""
        return len(self.places)

    async def start(self, key: SagaKey, birth: Birth, entry: Entry, started: SagaStarted) -> tuple[View, bool]:
        """Start a saga, and return it when its start is durable. False: one of that name was there before.

        :raises Overloaded: if this process runs as many sagas as it may, or as many that wait for a participant.
        :raises Unavailable: if the journal cannot be written; whether the saga was started is then unknown.
        """
        await self.domain.until_owned(key)
        await self._loading.wait(key)  # a saga is in memory once: whoever takes it there comes first
        if key in self.places:
            await self._wait_for_birth(key)
            # Whoever repeats a start that failed must not take "not found" for an answer.
            return await self._read_or(key, Unavailable("The start was not recorded: try again later.")), False
        self.domain.need(key)
        if (refusal := self.places.refusal(entry.graph, started)) is not None:
            return await self._read_or(key, refusal), False
        told: asyncio.Future[State | Exception] = asyncio.get_running_loop().create_future()
        if not self.begin(key, birth, entry, started, told.set_result):
            raise NotOwned(key.namespace, key.saga_id)  # the lease has just run out
        outcome = await asyncio.shield(told)
        if isinstance(outcome, State):
            return View(key, birth, outcome), True
        if isinstance(outcome, AlreadyExists):
            return await self.read(key), False
        raise outcome

    def begin(self, key: SagaKey, birth: Birth, entry: Entry, started: SagaStarted, told: Follower) -> bool:
        """Start a saga at once; `told` is called when its start is durable, or with why it is not.

        Of one on hold only the start is recorded: another process goes on with it. False, and nothing done, if
        something may be in its way: `start` knows what to do.
        """
        if key in self.places or key in self._loading or self.places.refusal(entry.graph, started) is not None:
            return False
        if not (epoch := self.domain.epoch_of(key)):
            return False
        decision = start(entry.graph, started, hold=self.domain.holds(key))
        saga = make_active(key, birth, entry.graph, decision.state, epoch, self._tokens)
        saga.call_back(1, told)
        self._record(saga, decision, None, birth)
        return True

    async def _read_or(self, key: SagaKey, instead: Exception) -> View:
        try:
            return await self.read(key)
        except NotFound:
            raise instead from None

    async def command(self, key: SagaKey, command: Command) -> View:
        """Carry a command out, and return the saga when what follows from it is durable.

        :raises NotFound: if there is no such saga.
        :raises amends_server.engine.commands.Rejected: if its state does not allow the command.
        :raises Unavailable: if the journal cannot be written; whether it was carried out is then unknown.
        """
        await self.domain.until_owned(key)
        async with self._pin(key) as saga:
            try:
                events, state = self._decide(saga, command)
            except Rejected:
                if saga.state is not None:  # nobody is told of what may still be lost
                    await saga.follow(saga.state.sequence)
                raise
            view = View(key, saga.birth, await saga.follow(state.sequence))
            raise_if_late(command, events)
            return view

    async def read(self, key: SagaKey) -> View:
        """Return a saga as it durably stands, without taking it into memory.

        :raises NotFound: if there is no such saga.
        """
        saga = self.places.get(key)
        if saga is not None and (state := saga.certain) is not None and self._owns(saga):
            return View(key, saga.birth, state)
        row, _, state = await self._reader.read(key)
        return View(key, row.birth, state)

    async def wake(self, key: SagaKey) -> None:
        """Have a saga do what is due; one whose orchestrator is gone is recovered. Harmless if nothing is due.

        :raises StoreError: if it cannot be read.
        :raises SagaHalted: if this process cannot carry it on.
        """
        async with self._pin(key) as saga:
            self._wake(saga)

    def runs(self, key: SagaKey) -> bool:
        """Tell whether the saga is in memory, and more than a wish, or known to be beyond repair."""
        saga = self.places.get(key)
        return (saga is not None and saga.durable is not None) or key in self.halts.why

    def adapt(self) -> None:
        """Let go of the sagas that somebody else may own now: their new owner recovers them."""
        for saga in [saga for saga in self.places.all() if not self._owns(saga)]:
            self._drop(saga)
        self.halts.keep(self.domain.epoch_of)
        self._hub.stir()

    def busy(self) -> list[SagaKey]:
        """Return the sagas on hold of which a call is in flight, or its outcome is not recorded yet."""
        return [saga.key for saga in self.places.all() if saga.unsettled and self.domain.holds(saga.key)]

    async def settle_calls(self) -> None:
        """Wait until all calls that were sent for sagas on hold are answered and recorded."""
        while self.busy():
            self._settled.clear()
            await self._settled.wait()

    # Decide, record, send

    def _decide(self, saga: ActiveSaga, command: Command) -> Decision:
        if saga.state is None:
            raise Unavailable("The saga's journal could not be written: try again when the store is back.")
        assert self.places.holds(saga), "decided on a saga that is not the one in memory"
        decision = decide(saga.state, command, self._clock.now(), hold=self.domain.holds(saga.key))
        if decision.events:
            self._record(saga, decision, command if isinstance(command, Settle) else None)
        return decision

    def _record(self, saga: ActiveSaga, decision: Decision, settle: Settle | None, birth: Birth | None = None) -> None:
        append, calls = saga.take(decision, birth), dispatched(saga.graph, decision.events)
        if birth is not None:
            self.places.enter(saga)
            self.places.wait(saga, calls)
        self._journal.append(append, partial(self._recorded, saga, decision.state, calls, settle))

    def _recorded(
        self, saga: ActiveSaga, state: State, calls: list[OwedCall], settle: Settle | None, error: StoreError | None
    ) -> None:
        saga.appending -= 1
        if error is not None:
            self._break(saga, settle, error)
            return
        saga.advance(state)
        self._hub.publish(saga.key, state)
        self._guard(saga, self._send, saga, state, calls)

    def _send(self, saga: ActiveSaga, durable: State, calls: Iterable[OwedCall]) -> None:
        """Send calls whose intent is durable, but for those that are out or were answered already."""
        for owed in saga.unsent(calls):
            if saga.state is not None and saga.state.going_back and not owed.compensation:
                self._decide(saga, saga.settle(owed, NotSent(NOT_SENT)))  # the turning back may be durable by now
                continue
            self.places.wait(saga, saga.calls or [owed])
            saga.calls.add(owed)
            order = order_call(durable, owed)
            told, obstacle = partial(self._told, saga, owed), partial(self._obstacle, saga, owed)
            self._send_call(order.node.step.participant, order, saga.origin, told, obstacle)

    def _obstacle(self, saga: ActiveSaga, owed: OwedCall) -> NotSent | None:
        """Return why a call is not to be sent, None if it is. No action is once the saga has turned back (I3)."""
        state = saga.state
        if state is None or state.paused or self.domain.holds(saga.key) or (state.going_back and not owed.compensation):
            return NotSent(NOT_WANTED)
        return self.places.put_off(saga, owed)

    def _told(self, saga: ActiveSaga, owed: OwedCall, verdict: Verdict) -> None:
        settle = saga.settle(owed, verdict)
        saga.calls.discard(owed)
        self.places.told(saga, owed, verdict)
        if saga.state is None:
            saga.unrecorded.append(settle)
            self._note_settled(saga)
        else:
            self._guard(saga, self._decide, saga, settle)

    def _guard(self, saga: ActiveSaga, act: Callable[[*Args], object], *args: *Args) -> None:
        """Do something with a saga so that a bug stops it and no other (I34)."""
        try:
            act(*args)
        except Exception as bug:
            saga.distrust(self._halt(saga.key, bug))
        self._rest(saga)

    def _halt(self, key: SagaKey, bug: Exception) -> SagaHalted:
        self.halts.add(key, self.domain.epoch_of(key), bug)
        self.places.leave(key)
        self._hub.publish(key, None)  # so that nobody waits for it any longer
        return SagaHalted(key.namespace, key.saga_id, type(bug).__name__)

    # Rest and wake

    def _rest(self, saga: ActiveSaga) -> None:
        """Drop a saga that nothing in this process waits for; have one that is due soon wake up."""
        if saga.appending:  # then it comes to rest when that is over
            return
        self._note_settled(saga)
        if saga.state is None or not self.places.holds(saga):
            return
        if not saga.calls:
            self.places.rest(saga)
        due_time = saga.next_time(saga.state)
        saga.disarm()
        if due_time is None and saga.calls:  # an answer leads on
            return
        # One with calls out stays anyway, and a scan that would find it may have to wait for room.
        keep_s = inf if saga.calls else KEEP_CROWDED_S if self.places.crowded else KEEP_S
        delay_s = inf if due_time is None else max(0, due_time - self._clock.now()) / SECOND_US
        if delay_s <= keep_s and not self.domain.holds(saga.key):
            saga.arm(delay_s, partial(self.ring, saga))
        elif saga.idle and saga.key not in self._pins:
            self.places.leave(saga.key)

    def _note_settled(self, saga: ActiveSaga) -> None:
        if not saga.calls and not saga.appending:
            self._settled.set()

    def ring(self, saga: ActiveSaga) -> None:
        if self.places.holds(saga):
            self._wake(saga)

    def _wake(self, saga: ActiveSaga) -> None:
        if saga.state is not None and not self.domain.holds(saga.key):
            self._guard(saga, self._decide, saga, Wake())

    # Load, mend and let go

    @asynccontextmanager
    async def _pin(self, key: SagaKey) -> AsyncGenerator[ActiveSaga]:
        """Give a saga in memory that stays there inside of the block: there must never be two of one."""
        self._pins[key] = self._pins.get(key, 0) + 1
        try:
            yield await self._get(key)
        finally:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]
            saga = self.places.get(key)
            if saga is not None:
                self._rest(saga)

    async def _get(self, key: SagaKey) -> ActiveSaga:
        """Return a saga in memory, taking it there if it is not."""
        self.halts.check(key)
        if key in self.places:
            await self._wait_for_birth(key)
        return self.places.get(key) or await self._loading.load(key)

    async def _wait_for_birth(self, key: SagaKey) -> None:
        """Wait until a saga in memory is more than a wish: a start that is a repetition leaves no trace."""
        while (saga := self.places.get(key)) is not None and saga.durable is None and saga.state is not None:
            await asyncio.gather(saga.follow(1), return_exceptions=True)  # of a failure, `state` tells

    async def _activate(self, key: SagaKey) -> ActiveSaga:
        epoch = self.domain.need(key)
        try:
            row, entry, state = await self._reader.read(key)
        except StoreError:
            raise
        except Exception as bug:
            raise self._halt(key, bug) from bug
        if self.domain.epoch_of(key) != epoch:  # meanwhile another one may have owned it, and gone on with it
            return await self._activate(key)
        saga = make_active(key, row.birth, entry.graph, state, epoch, self._tokens)
        saga.durable = state
        self.places.enter(saga)
        if state.final or (key in self._unsent and row.head.epoch == epoch):
            self._guard(saga, self._send, saga, state, owed_calls(state))
        else:  # what is open may have been sent, by another process or by this one before it let go of the saga
            saga.inherited = frozenset(owed_calls(state))
            self._guard(saga, self._decide, saga, saga.recovery(row.head.epoch))
        return saga

    def _break(self, saga: ActiveSaga, settle: Settle | None, error: StoreError) -> None:
        """Stop building on a saga of which an append failed. It is read again when the store is back."""
        saga.distrust(NotOwned(saga.key.namespace, saga.key.saga_id) if isinstance(error, Stale) else error)
        if settle is not None:
            saga.unrecorded.append(settle)
        self._note_settled(saga)
        if not self.places.holds(saga):
            return
        if isinstance(error, Stale):
            self._drop(saga)
        elif saga.durable is None and not isinstance(error, Unavailable):  # a refused start: it never was
            self.places.leave(saga.key)
        else:
            log.warning("saga_not_recorded", namespace=saga.key.namespace, saga_id=saga.key.saga_id, error=str(error))
            self.mender.add(saga, error)

    def _owns(self, saga: ActiveSaga) -> bool:
        return self.domain.epoch_of(saga.key) == saga.origin.epoch

    def _drop(self, saga: ActiveSaga) -> None:
        """Let go of a saga that somebody else may own now; what becomes of an append under way is told when it has."""
        saga.forsake()
        self.places.leave(saga.key)
        self._hub.publish(saga.key, None)
        self._settled.set()

    async def _rewake(self, saga: ActiveSaga) -> None:
        """Forget a start that failed: only the store knows whether it went well, and what else has that id."""
        if self.places.holds(saga):
            self.places.leave(saga.key)
            self._unsent.add(saga.key)
        try:
            await self.wake(saga.key)
        finally:
            self._unsent.discard(saga.key)

    def _resume(self, saga: ActiveSaga, epoch: int, state: State) -> None:
        """Go on with a saga that was read again."""
        if not self.places.holds(saga):  # it was let go of meanwhile
            return
        if not self._owns(saga):
            return self._drop(saga)
        saga.state = state
        saga.advance(state)
        self._hub.publish(saga.key, state)
        unrecorded, saga.unrecorded = saga.unrecorded, []
        if epoch != saga.origin.epoch or saga.inherited.intersection(owed_calls(state)):  # others had it, or have sent
            self._guard(saga, self._decide, saga, saga.recovery(epoch))
        else:
            self._guard(saga, self._go_on, saga, state, unrecorded)

    def _go_on(self, saga: ActiveSaga, state: State, unrecorded: list[Settle]) -> None:
        """Record outcomes that are not in the journal yet; what is open besides was never sent, and is sent now."""
        for settle in saga.still_open(unrecorded):
            self._decide(saga, settle)
        self._send(saga, state, owed_calls(state))
        self._wake(saga)  # it may have been loaded to begin what was held back, and that could not be recorded
