"""What a session has to tell of its starts: kept until the client takes it, in bounded memory, and written then."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, assert_never

from google.rpc import status_pb2

from amends.v1 import orchestrator_pb2 as pb
from amends_server.convert.enums import SAGA_STATUS_TO_WIRE
from amends_server.convert.saga import result_to_wire
from amends_server.engine.payload import Json, payload_size_bytes
from amends_server.engine.state import SagaStatus, State
from amends_server.errors import NotWaitedFor
from amends_server.runner.reader import View
from amends_server.status import to_status
from amends_server.store.protocol import SagaKey

ENDS_MAX = 4_096
"""Ends kept for a client that does not take them, as many as ours gives credits for. Of others it has to ask."""

ENDS_BYTES_MAX = 32 << 20
"""Of data in the ends that are kept: thousands of common sagas, or a few of the largest."""

BATCH_BYTES_MAX = 1 << 20
"""Of outcomes in one message: none waits long for the bytes of others."""

OUTCOMES_BYTES_MAX = (4 << 20) - (64 << 10)
"""Of all outcomes in one message: what any gRPC client takes by default, less what stands around them. A saga that is
larger by itself could break the stream for all others, so clients have to ask for it."""


class Acknowledged(NamedTuple):
    """A start is durable. The saga itself is not kept: it may have large data, and be over long before this is told."""

    start_id: int
    key: SagaKey
    status: SagaStatus
    sequence: int


class Ended(NamedTuple):
    """A saga has settled. `size_bytes` is how much data is kept with it."""

    start_id: int
    view: View
    size_bytes: int


class Refused(NamedTuple):
    """A start was refused, or the end of a saga will not be told here (`end`)."""

    start_id: int
    status: status_pb2.Status
    end: bool


Outcome = Acknowledged | Ended | Refused


class Outcomes:
    """Those that the client has not taken yet, in their order."""

    def __init__(self) -> None:
        self._kept: deque[Outcome] = deque()
        self._ends_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, outcome: Acknowledged | Refused) -> None:
        """Keep an outcome; of these there are no more than starts are taken."""
        self._kept.append(outcome)

    def end(self, start_id: int, view: View) -> None:
        """Keep the end of a saga, or have the client ask for it if it has left too many lying here."""
        if len(self._kept) >= ENDS_MAX or self._ends_bytes > ENDS_BYTES_MAX:
            self.ask(start_id, view.key)
            return
        size_bytes = _held_bytes(view.state)
        self._ends_bytes += size_bytes
        self._kept.append(Ended(start_id, view, size_bytes))

    def ask(self, start_id: int, key: SagaKey) -> None:
        """Have the client ask for the end of a saga."""
        self._kept.append(Refused(start_id, _not_waited_for(key), end=True))

    def write(self, response: pb.OrchestratorServiceSessionResponse, credits: int) -> int:
        """Write those that fit into a message, as many as there are credits for. Return how many starts they answer."""
        kept, size, answered = self._kept, 0, 0
        while kept and credits > 0 and size < BATCH_BYTES_MAX:
            outcome, message = kept[0], response.outcomes.add()
            _write(message, outcome)
            size += message.ByteSize()
            if size > OUTCOMES_BYTES_MAX and len(response.outcomes) > 1:  # it goes into the next message
                del response.outcomes[-1]
                break
            kept.popleft()
            credits -= 1
            if isinstance(outcome, Ended):
                self._ends_bytes -= outcome.size_bytes
            elif isinstance(outcome, Acknowledged) or not outcome.end:
                answered += 1
        return answered


def _write(to: pb.SessionOutcome, outcome: Outcome) -> None:
    to.id = outcome.start_id
    match outcome:
        case Acknowledged():
            saga = to.saga
            saga.namespace, saga.saga_id = outcome.key
            saga.status, saga.sequence = SAGA_STATUS_TO_WIRE[outcome.status], outcome.sequence
        case Ended():
            view = outcome.view
            result_to_wire(view.state, view.birth.definition_version, to.saga)
            if to.ByteSize() > OUTCOMES_BYTES_MAX:
                to.ClearField("saga")
                _write_refusal(to, _not_waited_for(view.key))
        case Refused():
            _write_refusal(to, outcome.status)
        case _:
            assert_never(outcome)


def _write_refusal(to: pb.SessionOutcome, status: status_pb2.Status) -> None:
    to.status_code = status.code
    to.status_details = status.SerializeToString()


def _not_waited_for(key: SagaKey) -> status_pb2.Status:
    return to_status(NotWaitedFor(key.namespace, key.saga_id))


def _held_bytes(state: State) -> int:
    """Count the data that a state holds. What several steps share counts for each: that is soon enough."""
    size = payload_size_bytes(state.started.input) + payload_size_bytes(state.output)
    for step in state.steps:
        for payload in (step.input, step.output, step.arguments):
            if payload is not None:
                size += len(payload.text) if isinstance(payload, Json) else payload_size_bytes(payload)
        for error in (step.action.error, step.compensation.error):
            if error is not None:
                size += payload_size_bytes(error.data)
    return size
