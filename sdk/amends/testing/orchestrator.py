"""An orchestrator inside a test: the real engine, without server, network, files or real time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from amends.builder import Saga
from amends.participant import Participant
from amends.testing._handlers import Handlers
from amends.testing._machine import Machine, graph_of
from amends.testing._world import World
from amends.testing.scenario import Scenario

In = TypeVar("In")
Out = TypeVar("Out")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Orchestrator:
    """Runs sagas, and stands still while nobody moves its clock.

    Calls to `participants` are made to their handlers, in this process, when the clock is moved or something is
    expected; calls to all others wait for what a test says of them.
    """

    def __init__(self, participants: Iterable[Participant] = ()) -> None:
        self._handlers = Handlers(participants)
        self._world = World(self._handlers)

    @property
    def now(self) -> datetime:
        """What its clock says; aware, in UTC."""
        return _EPOCH + timedelta(microseconds=self._world.now)

    def start(self, saga: Saga[In, Out], input: In, *, id: str | None = None) -> Scenario[Out]:
        """Start a saga; its first calls are owed then, and none is made yet. Without an `id` it gets a new one.

        :raises DefinitionError: if a server would not take the definition.
        """
        saga_id = id or self._handlers.new_id(saga.name, len(self._world.machines) + 1)
        machine = Machine(graph_of(saga), saga_id, input, self._world.now)
        self._world.machines.append(machine)
        return Scenario(self._world, machine)

    def advance(self, seconds: float) -> None:
        """Move the clock, and do all that is due until then: calls to handlers, retries, deadlines."""
        self._world.advance(seconds)


def given(saga: Saga[In, Out], input: In, *, participants: Iterable[Participant] = ()) -> Scenario[Out]:
    """Start a saga in an orchestrator of its own, to say of it what is expected.

    :raises DefinitionError: if a server would not take the definition.
    """
    return Orchestrator(participants).start(saga, input)
