"""Control: what operators do with sagas. Each takes a reason, which is recorded."""

from __future__ import annotations

from amends.connection import Connected
from amends.payloads import encode
from amends.v1 import operator_pb2, saga_pb2
from amends.views import Resolution, SagaView


class Control(Connected):
    """The part of a client that steers sagas."""

    async def pause(self, id: str, *, reason: str) -> SagaView:
        """Have nothing new be called for a saga until it is resumed.

        :raises FailedPrecondition: if it has ended.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.PauseSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.once(self._connection.operator.PauseSaga, request)).saga)

    async def resume(self, id: str, *, reason: str) -> SagaView:
        """Have a paused saga go on.

        :raises FailedPrecondition: if it is not paused.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.ResumeSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.once(self._connection.operator.ResumeSaga, request)).saga)

    async def retry(self, id: str, *, reason: str) -> SagaView:
        """Have a STUCK saga go on with its attempts anew; one that waits for a retry makes it now.

        :raises FailedPrecondition: if it neither is stuck nor waits.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.RetrySagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.once(self._connection.operator.RetrySaga, request)).saga)

    async def resolve(
        self, id: str, step: str, resolution: Resolution, *, output: object = None, reason: str
    ) -> SagaView:
        """Settle a step that cannot settle itself. `output` is for SUCCEEDED.

        :raises FailedPrecondition: if the step cannot be settled so as it stands.
        :raises NotFound: if there is no such saga or step.
        """
        request = operator_pb2.ResolveStepRequest(
            namespace=self._namespace,
            saga_id=id,
            step=step,
            resolution=saga_pb2.StepResolution.Value(f"STEP_RESOLUTION_{resolution}"),
            output=None if output is None else encode(output),
            reason=reason,
        )
        return SagaView.of((await self._connection.once(self._connection.operator.ResolveStep, request)).saga)

    async def fail(self, id: str, *, reason: str) -> SagaView:
        """Give up a STUCK saga, with whatever was left undone. Final.

        :raises FailedPrecondition: if it is not stuck.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.FailSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.once(self._connection.operator.FailSaga, request)).saga)
