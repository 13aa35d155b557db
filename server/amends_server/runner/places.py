"""The sagas in memory, and how many of them wait for each participant, so that one that hangs leaves room for others.

A saga that has calls out counts at one participant, that of one of these calls. A participant may have as many sagas in
memory as there are places free, so a part of the places is left, unless dozens of participants hang at the same time.
Starts whose first calls go to one that has as many are refused. Sagas under way come before them: their calls are put
off only at twice as many, and if its answers are too few to have them all through soon. Then they are dropped from
memory and come back by their due times, a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from amends_server.config import PATIENCE_S, PLACES_FREE_PARTS, PUT_OFF_S, PUT_OFFS_PER_S
from amends_server.engine.commands import NotSent, Verdict
from amends_server.engine.due import OwedCall
from amends_server.engine.events import SagaStarted
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error
from amends_server.engine.policy import SECOND_US
from amends_server.errors import Overloaded, ParticipantCrowded
from amends_server.runner.active import ActiveSaga
from amends_server.store.protocol import SagaKey

LOOK_S = 1.0
"""For how long answers are counted before it is said how many come in a second."""

WARN_S = 60.0
"""How often an operator is told of the same participant."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Queue:
    """The sagas that wait for a participant, its answers since then, and how fast they came before."""

    since_s: float
    sagas: int = 0
    answers: int = 0
    answers_per_s: float | None = None

    def moves(self, now_s: float) -> bool:
        """Tell whether all would be through soon, as fast as the participant answers."""
        past_s = now_s - self.since_s
        if past_s >= LOOK_S:
            self.answers_per_s = self.answers / past_s
            self.since_s, self.answers = now_s, 0
        if self.answers_per_s is None:  # as far as one can tell, so that nobody fills memory before that is known
            return self.sagas * past_s < self.answers * PATIENCE_S
        return self.sagas <= self.answers_per_s * PATIENCE_S


class Places:
    """The sagas in memory. There may be `places_max`; whoever brings one there asks first."""

    def __init__(self, places_max: int) -> None:
        self._max = places_max
        self._own = max(1, places_max // PLACES_FREE_PARTS)
        self._sagas: dict[SagaKey, ActiveSaga] = {}
        self._queues: dict[str, Queue] = {}
        self._leaving: set[SagaKey] = set()
        self._left = asyncio.Event()
        self._last_return_s = 0.0
        self._warned: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._sagas)

    def __contains__(self, key: SagaKey) -> bool:
        return key in self._sagas

    def get(self, key: SagaKey) -> ActiveSaga | None:
        """Return the saga of that name, if it is in memory."""
        return self._sagas.get(key)

    def all(self) -> Iterable[ActiveSaga]:
        """Return them all."""
        return self._sagas.values()

    def holds(self, saga: ActiveSaga) -> bool:
        """Tell whether it is this saga that is in memory, and not another one of its name."""
        return self._sagas.get(saga.key) is saga

    @property
    def crowded(self) -> bool:
        """True when half of the places are taken."""
        return 2 * len(self._sagas) >= self._max

    def enter(self, saga: ActiveSaga) -> None:
        """Take a saga into memory."""
        assert saga.key not in self._sagas, "a saga is in memory once"
        self._sagas[saga.key] = saga

    def leave(self, key: SagaKey) -> None:
        """Let go of the saga of that name, if it is in memory."""
        if (saga := self._sagas.pop(key, None)) is not None:
            self.rest(saga)
            self._leaving.discard(key)
            self._left.set()

    async def room(self) -> None:
        """Wait until there are fewer sagas in memory than may be."""
        while len(self._sagas) >= self._max:
            self._left.clear()
            await self._left.wait()

    # Who waits for whom

    def wait(self, saga: ActiveSaga, calls: Iterable[OwedCall]) -> None:
        """Note that a saga that is in memory waits for one of the calls, if there are any."""
        for owed in calls:
            participant = saga.participant(owed)
            if saga.waits_for != participant and self.holds(saga):
                self.rest(saga)
                self._leaving.discard(saga.key)
                saga.waits_for = participant
                if (queue := self._queues.get(participant)) is None:
                    queue = self._queues[participant] = Queue(asyncio.get_running_loop().time())
                queue.sagas += 1
            return

    def told(self, saga: ActiveSaga, owed: OwedCall, verdict: Verdict) -> None:
        """Note that a call is over; the saga waits for the others that it has out."""
        if not isinstance(verdict, NotSent) and (queue := self._queues.get(saga.participant(owed))) is not None:
            queue.answers += 1
        self.wait(saga, saga.calls)

    def rest(self, saga: ActiveSaga) -> None:
        """Note that a saga waits for nobody."""
        if name := saga.waits_for:
            saga.waits_for = ""
            queue = self._queues[name]
            queue.sagas -= 1
            if not queue.sagas:
                del self._queues[name]

    def refusal(self, graph: Graph, started: SagaStarted) -> Overloaded | None:
        """Return why a saga cannot be started now, None if it can."""
        free = self._max - len(self._sagas)
        if free <= 0:
            return Overloaded("sagas running", self._max)
        if started.start_time is not None:
            return None
        for node in (graph.nodes[i] for i in graph.roots):
            queue = self._queues.get(node.step.participant)
            if queue is not None and queue.sagas >= max(free, self._own) and node.step.delay_us is None:
                self._warn(node.step.participant, queue.sagas)
                return ParticipantCrowded(node.step.participant, queue.sagas)
        return None

    def put_off(self, saga: ActiveSaga, owed: OwedCall) -> NotSent | None:
        """Have a call that was not sent yet made later, if too many sagas wait for its participant; else None.

        The saga counts as gone then: so only those that are too many are put off, and one that is with all its calls.
        """
        participant = saga.participant(owed)
        if saga.key not in self._leaving:
            if saga.waits_for != participant or not self._in_the_way(self._queues[participant]):
                return None
            self._warn(participant, self._queues[participant].sagas)
            self.rest(saga)
            self._leaving.add(saga.key)
        text = f"Too many sagas wait for `{participant}`, so the call was not sent; it is made later."
        return NotSent(Error("NOT_SENT", text, participant), self._next_return_us())

    def _in_the_way(self, queue: Queue) -> bool:
        """Tell whether too many sagas wait here, more than anywhere else, and for too long."""
        free = self._max - len(self._sagas) + len(self._leaving)
        if queue.sagas <= max(2 * free, self._own) or queue.moves(asyncio.get_running_loop().time()):
            return False
        return queue.sagas >= max(each.sagas for each in self._queues.values())

    def _next_return_us(self) -> int:
        """Return how long from now the next saga may come back: in their order, a few at a time."""
        now_s = asyncio.get_running_loop().time()
        self._last_return_s = max(self._last_return_s + 1 / PUT_OFFS_PER_S, now_s + PUT_OFF_S)
        return round((self._last_return_s - now_s) * SECOND_US)

    def _warn(self, participant: str, waiting: int) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._warned.get(participant, -WARN_S) >= WARN_S:
            self._warned[participant] = now_s
            log.warning("participant_crowded", participant=participant, sagas=waiting, places=self._max)
