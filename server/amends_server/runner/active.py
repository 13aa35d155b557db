"""A saga in memory: what was decided of it, what of that is durable, and which of its calls are out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from amends_server.codec import encode
from amends_server.engine.commands import Recover, Settle, Verdict
from amends_server.engine.decide import Decision
from amends_server.engine.due import OwedCall, is_open, next_time, owed_calls
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error
from amends_server.engine.policy import Time
from amends_server.engine.state import State
from amends_server.store.incarnation import incarnation_of
from amends_server.store.protocol import Append, Birth, Head, SagaKey
from amends_server.tokens import Tokens
from amends_server.transport.requests import Origin


def make_active(
    key: SagaKey, birth: Birth, graph: Graph, state: State, epoch: int, tokens: Tokens | None
) -> ActiveSaga:
    """Return a saga of which nothing is out yet; what it sends is sent under that epoch."""
    origin = Origin(
        started=state.started,
        definition_name=birth.definition_name,
        definition_version=birth.definition_version,
        epoch=epoch,
        tokens=tokens,
    )
    return ActiveSaga(key=key, birth=birth, graph=graph, origin=origin, state=state)


NOT_SENT = Error("NOT_SENT", "The saga turned back before the call was sent.")
NOT_WANTED = Error("NOT_SENT", "The call was not sent: it was not wanted any more.")

Follower = Callable[[State | Exception], None]
"""Called with the durable state that was waited for, or with why there is none."""


@dataclass(slots=True, eq=False, kw_only=True)
class ActiveSaga:
    """A saga that this process runs.

    Decisions are made on `state` at once, and go to the journal in their order; `durable` follows when they are on
    disk, and is None until the start is. Nothing is sent and nobody is answered before that. `state` is None while the
    saga cannot be trusted, because an append of it failed: then it has to be read again, and `unrecorded` keeps the
    outcomes that have come or come in the meantime. `inherited` are the calls that were open when this saga came into
    memory: they were sent before, if they were sent. `waits_for` is the participant at which it counts: see `places`.
    """

    key: SagaKey
    birth: Birth
    graph: Graph
    origin: Origin
    state: State | None
    durable: State | None = None
    appending: int = 0
    inherited: frozenset[OwedCall] = frozenset()
    waits_for: str = ""
    calls: set[OwedCall] = field(default_factory=set[OwedCall])
    unrecorded: list[Settle] = field(default_factory=list[Settle])
    timer: asyncio.TimerHandle | None = None
    _next_time: tuple[State | None, Time | None] = (None, None)
    _followers: list[tuple[int, Follower]] = field(default_factory=list[tuple[int, "Follower"]])

    def take(self, decision: Decision, birth: Birth | None = None) -> Append:
        """Take a decision for the saga's state, and return what is to be written of it; of a start with the birth."""
        state = decision.state
        first = state.sequence - len(decision.events) + 1
        head = Head(
            sequence=state.sequence,
            epoch=self.origin.epoch,
            status=state.status,
            paused=state.paused,
            due_time=self.next_time(state),
            update_time=state.update_time,
            end_time=state.update_time if state.final else None,
        )
        self.state = state
        self.appending += 1
        records = [encode(event, first + i) for i, event in enumerate(decision.events)]
        return Append(key=self.key, records=records, head=head, birth=birth)

    def next_time(self, state: State) -> Time | None:
        """Return when to look at the saga again in one of its states; asked for again and again between two events."""
        if self._next_time[0] is not state:
            self._next_time = (state, next_time(state))
        return self._next_time[1]

    def unsent(self, calls: Iterable[OwedCall]) -> list[OwedCall]:
        """Return those of the calls that are neither out nor answered."""
        state = self.state
        return [] if state is None else [call for call in calls if is_open(state, call) and call not in self.calls]

    def participant(self, owed: OwedCall) -> str:
        """Return to whom a call goes."""
        return self.graph.nodes[owed.node].step.participant

    @property
    def certain(self) -> State | None:
        """The durable state; None while something is written, or may have been, which others may see already (I37)."""
        return self.durable if self.state is self.durable else None

    @property
    def idle(self) -> bool:
        """True when nothing in this process waits for anything of the saga, so that it need not stay in memory."""
        return self.state is not None and self.state is self.durable and not self.calls and not self.appending

    @property
    def unsettled(self) -> bool:
        """True while a call is out, or what was decided is being recorded. A start can be made elsewhere instead."""
        return bool(self.calls) or (self.appending > 0 and self.durable is not None)

    def follow(self, sequence: int) -> asyncio.Future[State]:
        """Return a future of the durable state that has that many events or more."""
        future: asyncio.Future[State] = asyncio.get_running_loop().create_future()

        def tell(outcome: State | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.call_back(sequence, tell)
        return future

    def call_back(self, sequence: int, follower: Follower) -> None:
        """Have somebody called once that many events are durable, or it is known that they will not be."""
        if self.durable is not None and self.durable.sequence >= sequence:
            follower(self.durable)
        else:
            self._followers.append((sequence, follower))

    def advance(self, durable: State) -> None:
        """Note that a state is durable, and tell those who wait for it."""
        self.durable = durable
        if self._followers:
            waiting, self._followers = self._followers, []
            for sequence, follower in waiting:
                if sequence > durable.sequence:
                    self._followers.append((sequence, follower))
                else:
                    follower(durable)

    def forsake(self) -> None:
        """Note that `state` is not to be built on any more."""
        self.disarm()
        self.state = None

    def distrust(self, error: Exception) -> None:
        """Note that `state` is not to be built on any more, and tell those who wait."""
        self.forsake()
        waiting, self._followers = self._followers, []
        for _, follower in waiting:
            follower(error)

    def recovery(self, last_epoch: int) -> Recover:
        """Return the command that begins where the last owner, of that epoch, has ended."""
        return Recover(restored=incarnation_of(last_epoch) != incarnation_of(self.origin.epoch))

    def settle(self, owed: OwedCall, verdict: Verdict) -> Settle:
        """Return the command that records how a call of this saga ended."""
        return Settle(self.graph.nodes[owed.node].step.id, owed.compensation, owed.attempt, verdict)

    def still_open(self, settles: list[Settle]) -> list[Settle]:
        """Return those of the outcomes that are waited for."""
        assert self.state is not None, "a saga that was read again"
        steps = self.graph.nodes
        waited = {(steps[o.node].step.id, o.compensation, o.attempt) for o in owed_calls(self.state)}
        return [settle for settle in settles if (settle.step, settle.compensation, settle.attempt) in waited]

    def arm(self, delay_s: float, ring: Callable[[], None]) -> None:
        """Call back after that time, unless disarmed."""
        self.timer = asyncio.get_running_loop().call_later(delay_s, ring)

    def disarm(self) -> None:
        """Stop the timer, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
