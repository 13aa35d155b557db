"""One saga on the real engine: a journal in memory, and decisions at times that are given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amends.client.filters import timestamp
from amends.definition.builder import Saga
from amends.errors import DefinitionError, PayloadError
from amends.payloads import encode
from amends.policies import Duration, duration_message
from amends.testing._refusals import as_starts_see_them
from amends.v1 import orchestrator_pb2
from amends_server import codec
from amends_server.catalogue import Entry
from amends_server.config import PAYLOAD_BYTES_MAX
from amends_server.convert.definition import read_definition
from amends_server.convert.payload import read_payload
from amends_server.engine.action import raise_if_late
from amends_server.engine.checks.problem import InvalidDefinition
from amends_server.engine.commands import Command, Recover, Settle, Verdict
from amends_server.engine.decide import Decision, decide, start
from amends_server.engine.definition import digest
from amends_server.engine.due import CallOrder, OwedCall, due, order_call
from amends_server.engine.events import Event
from amends_server.engine.evolve import fold
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import Payload
from amends_server.engine.policy import Time
from amends_server.engine.state import State
from amends_server.errors import BadField, PayloadTooLarge
from amends_server.service.starts import Start, read_start
from amends_server.store.protocol import SagaKey, StoredDefinition
from amends_server.tokens import Tokens
from amends_server.transport.requests import Origin

NAMESPACE = "default"
DEFINITION_VERSION = 1
PRINCIPAL = "test"
TOKENS = Tokens(b"amends.testing")
"""Nothing here is secret: tokens only have to fit their steps."""


def graph_of(saga: Saga[Any, Any]) -> Graph:
    """Return a saga's definition, checked and indexed as a server does it.

    :raises DefinitionError: with all that is wrong with it.
    """
    try:
        definition, _ = read_definition(saga.definition(), "definition")
    except InvalidDefinition as invalid:
        raise DefinitionError(str(invalid)) from None
    return build_graph(definition, digest(definition))


def payload_of(value: object) -> Payload | None:
    """Return a value as the engine takes it.

    :raises PayloadError: if it is of a kind that has no place in a payload, or a server would not take it.
    """
    try:
        return read_payload(encode(value), "value", PAYLOAD_BYTES_MAX)
    except (BadField, PayloadTooLarge) as problem:
        raise PayloadError(str(problem)) from None


def start_of(
    value: object,
    saga_id: str,
    *,
    labels: Mapping[str, str] | None = None,
    at: datetime | None = None,
    deadline: Duration | None = None,
) -> Start:
    """Return a start, checked as a server does it.

    :raises PayloadError: if the value cannot be a payload.
    :raises ValueError: if `at` has no time zone.
    :raises RpcError: if a server would not take it: whatever a client would get then.
    """
    request = orchestrator_pb2.StartSagaRequest(
        namespace=NAMESPACE,
        saga_id=saga_id,
        input=encode(value),
        labels=labels,
        deadline=duration_message(deadline, "deadline"),
        start_time=timestamp(at),
    )
    with as_starts_see_them(saga_id):
        return read_start(request, saga_id, PAYLOAD_BYTES_MAX)


class Machine:
    """A saga, from its start on. What it owes is derived from its journal alone, so that it can crash at any time.

    `notes` is what happened to it, in words, for people who read why an expectation failed.
    """

    def __init__(self, graph: Graph, start_: Start, now: Time) -> None:
        stored = StoredDefinition(
            namespace=NAMESPACE,
            name=graph.definition.name,
            version=DEFINITION_VERSION,
            digest=graph.digest,
            body=b"",
            create_time=now,
        )
        entry = Entry(stored, graph)
        with as_starts_see_them(start_.key.saga_id):
            start_.check_input(entry)
        self.started_as = start_
        self.notes: list[str] = []
        self._graph = graph
        self._epoch = 1
        self.journal: list[Event] = []
        self.state: State
        self.commit(start(graph, start_.event(entry, now, PRINCIPAL, "")))

    @property
    def digest(self) -> str:
        """The digest of its definition."""
        return self._graph.digest

    @property
    def calls(self) -> tuple[OwedCall, ...]:
        """The calls whose intent is in the journal and whose outcome is not."""
        return due(self.state).calls

    @property
    def next_time(self) -> Time | None:
        """When something is due without an answer; None if only answers lead on."""
        return None if self.state.final else due(self.state).next_time

    @property
    def origin(self) -> Origin:
        """What calls say of the saga that they belong to."""
        return Origin(
            started=self.state.started,
            definition_name=self._graph.definition.name,
            definition_version=DEFINITION_VERSION,
            epoch=self._epoch,
            tokens=TOKENS,
        )

    def order(self, owed: OwedCall) -> CallOrder:
        """Return what a call is made of."""
        return order_call(self.state, owed)

    def step_of(self, owed: OwedCall) -> str:
        """Return the id of the step that a call belongs to."""
        return self._graph.nodes[owed.node].step.id

    def settled(self, owed: OwedCall, verdict: Verdict) -> Settle:
        """Return the command that records the outcome of a call."""
        return Settle(self.step_of(owed), owed.compensation, owed.attempt, verdict)

    def propose(self, command: Command, now: Time) -> Decision:
        """Decide, and record nothing: without `commit` the decision is lost, as in a crash."""
        return decide(self.state, command, now)

    def commit(self, decision: Decision) -> None:
        """Make a decision durable."""
        self.journal += decision.events
        self.state = decision.state

    def apply(self, command: Command, now: Time) -> None:
        """Decide and record.

        :raises Rejected: if the saga's state does not allow it.
        """
        decision = self.propose(command, now)
        self.commit(decision)
        raise_if_late(command, decision.events)

    def restart(self, now: Time) -> None:
        """Forget everything but the records of the journal, and recover from them."""
        key = SagaKey(NAMESPACE, self.state.started.saga_id)
        records = [codec.encode(event, sequence) for sequence, event in enumerate(self.journal, start=1)]
        self.journal = [codec.decode(key, record) for record in records]
        self.state = fold(self._graph, self.journal)
        self._epoch += 1
        if not self.state.final:
            self.apply(Recover(), now)
