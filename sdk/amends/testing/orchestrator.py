"""An orchestrator inside a test: the real engine, without server, network, files or real time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from amends.definition.builder import Saga
from amends.participant.participant import Participant
from amends.policies import Duration
from amends.testing._handlers import Handlers
from amends.testing._machine import Machine, graph_of, start_of
from amends.testing._refusals import as_starts_see_them
from amends.testing._world import World
from amends.testing.scenario import Scenario
from amends_server.engine.graph import Graph
from amends_server.errors import SagaAlreadyExists
from amends_server.service.starts import Start

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

    def start(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        at: datetime | None = None,
        deadline: Duration | None = None,
    ) -> Scenario[Out]:
        """Start a saga as `Client.start` does; its first calls are owed then, and none is made yet.

        :raises DefinitionError: if a server would not take the definition.
        :raises PayloadError: if the input cannot be a payload.
        :raises InvalidArgument: if a server would refuse the input, or something else of the start.
        :raises AlreadyExists: if there is a saga of that id with other content.
        :raises ValueError: if `at` has no time zone.
        """
        saga_id = id or self._handlers.new_id(saga.name, len(self._world.machines) + 1)
        graph = graph_of(saga)
        start = start_of(input, saga_id, labels=labels, at=at, deadline=deadline)
        machine = self._started(graph, start)
        if machine is None:
            machine = Machine(graph, start, self._world.now)
            self._world.machines.append(machine)
        return Scenario(self._world, machine)

    def _started(self, graph: Graph, start: Start) -> Machine | None:
        """Return the saga that this start repeats, if there is one."""
        there = next((each for each in self._world.machines if each.started_as.key == start.key), None)
        if there is not None and (there.started_as.fingerprint, there.digest) != (start.fingerprint, graph.digest):
            with as_starts_see_them(start.key.saga_id):
                raise SagaAlreadyExists(start.key.namespace, start.key.saga_id)
        return there

    def advance(self, seconds: float) -> None:
        """Move the clock, and do all that is due until then: calls to handlers, retries, deadlines."""
        self._world.advance(seconds)


def given(
    saga: Saga[In, Out],
    input: In,
    *,
    participants: Iterable[Participant] = (),
    labels: Mapping[str, str] | None = None,
    deadline: Duration | None = None,
) -> Scenario[Out]:
    """Start a saga in an orchestrator of its own, to say of it what is expected. Raises what `Orchestrator.start` does.

    For a start at a time, ask an `Orchestrator` what time it is.
    """
    return Orchestrator(participants).start(saga, input, labels=labels, deadline=deadline)
