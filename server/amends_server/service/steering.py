"""Commands for one saga, wherever it runs: carried out here, or passed on to the orchestrator that owns it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, assert_never

from amends.v1 import operator_pb2 as pb
from amends.v1 import orchestrator_pb2
from amends_server.convert.enums import RESOLUTION_TO_WIRE
from amends_server.convert.payload import set_payload
from amends_server.engine.commands import Cancel, Fail, Pause, Resolve, Resume, Retry
from amends_server.engine.state import State
from amends_server.runner.runner import Runner
from amends_server.service.peers import CANCEL, Here, Peers, operator_method
from amends_server.status import PeerRefused, reason_of
from amends_server.store.protocol import NotFound, SagaKey

if TYPE_CHECKING:
    Metadata = Iterable[tuple[str, str | bytes]]

Order = Retry | Cancel | Pause | Resume | Fail | Resolve


class Steering:
    """Knows where sagas run. Without `peers` all of them run here."""

    def __init__(self, runner: Runner, peers: Peers | None) -> None:
        self._runner = runner
        self._peers = peers

    async def command(self, key: SagaKey, order: Order, metadata: Metadata | None) -> int:
        """Carry an order out, and return the saga's sequence after it. `metadata` is what the caller said of itself.

        :raises NotFound: if there is no such saga.
        :raises amends_server.engine.commands.Rejected: if its state does not allow it.
        :raises PeerRefused: if its owner refuses.
        :raises amends_server.errors.NotOwned: if nobody runs it.
        :raises amends_server.errors.OwnerLost: if nobody knows whether it was carried out.
        """
        if self._peers is None:
            return await self._command(key, order)
        method, request, response = _call(key, order)
        try:
            answer = await self._peers.ask(method, key, request, order.principal, metadata)
        except PeerRefused as refused:
            if reason_of(refused.status) == "SAGA_NOT_FOUND":
                raise NotFound from None
            raise
        if isinstance(answer, Here):
            with answer.answering():
                return await self._command(key, order)
        sequence: int = response.FromString(answer).saga.sequence
        return sequence

    async def _command(self, key: SagaKey, order: Order) -> int:
        return (await self._runner.command(key, order)).state.sequence

    async def read(self, key: SagaKey) -> State:
        """Return a saga as it durably stands.

        :raises NotFound: if there is no such saga.
        """
        return (await self._runner.read(key)).state


def _call(key: SagaKey, order: Order) -> tuple[str, Any, type[Any]]:
    """Return the method for an order, its request, and the type of its response, which has a `saga`."""
    name, request, response = _form(order)
    request.namespace, request.saga_id, request.reason = key.namespace, key.saga_id, order.reason
    return name, request, response


def _form(order: Order) -> tuple[str, Any, type[Any]]:
    match order:
        case Cancel():
            return CANCEL, orchestrator_pb2.CancelSagaRequest(), orchestrator_pb2.CancelSagaResponse
        case Retry():
            return operator_method("RetrySaga"), pb.RetrySagaRequest(), pb.RetrySagaResponse
        case Pause():
            return operator_method("PauseSaga"), pb.PauseSagaRequest(), pb.PauseSagaResponse
        case Resume():
            return operator_method("ResumeSaga"), pb.ResumeSagaRequest(), pb.ResumeSagaResponse
        case Fail():
            return operator_method("FailSaga"), pb.FailSagaRequest(), pb.FailSagaResponse
        case Resolve():
            request = pb.ResolveStepRequest(step=order.step, resolution=RESOLUTION_TO_WIRE[order.resolution])
            if order.output is not None:
                set_payload(request.output, order.output)
            return operator_method("ResolveStep"), request, pb.ResolveStepResponse
        case _:
            assert_never(order)
