"""Calls the handlers of participants in this process with the requests of the wire, and says what they told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import grpc

from amends.participant._served import Served
from amends.participant._session import Refusal
from amends.participant.participant import Participant
from amends.testing import _loop
from amends.v1 import saga_pb2
from amends_server.config import PAYLOAD_BYTES_MAX
from amends_server.engine.commands import Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.policy import Time
from amends_server.transport.requests import Origin, compensate_request, execute_request
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

_numbers = count(1)


class Handlers:
    """The participants that have their code here."""

    def __init__(self, participants: Iterable[Participant] = ()) -> None:
        self._participants = {participant.name: participant for participant in participants}

    @property
    def any(self) -> bool:
        """True if there is one at least."""
        return bool(self._participants)

    def new_id(self, name: str, number: int) -> str:
        """Return a saga's id, the same in each run; where there are handlers, one that they have not seen before."""
        return f"{name}-{next(_numbers) if self._participants else number}"

    def have(self, participant: str) -> bool:
        """Tell whether a participant is one of these."""
        return participant in self._participants

    def call(self, order: CallOrder, origin: Origin, now: Time) -> Verdict:
        """Make a call, as a server would that sends it now, and return what was told."""
        step = order.node.step
        action = self._participants[step.participant].actions.get(step.action)
        if action is None or (order.compensation and action.undo is None):
            details = f"{step.action} has no compensation" if action else f"there is no action {step.action}"
            unimplemented = grpc.StatusCode.UNIMPLEMENTED
            return verdict_of_status(step.participant, unimplemented, details, compensation=order.compensation)
        try:
            reply = _loop.run(_reply(action, order, origin, now + order.timeout_us))
        except Refusal as reason:
            return verdict_of_status(step.participant, reason.code, reason.message, compensation=order.compensation)
        return verdict_of_reply(step.participant, reply, PAYLOAD_BYTES_MAX)


async def _reply(action: Served[object, object], order: CallOrder, origin: Origin, expire_time: Time) -> saga_pb2.Reply:
    if not order.compensation:
        return await action.execute(execute_request(order, origin, expire_time))
    assert action.undo is not None, "an action without compensation is not sent one"
    return await action.compensate(action.undo, compensate_request(order, origin, expire_time))
