"""Control: what operators do with sagas, one at a time or all that match. Each takes a reason, which is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, Unpack

from amends.client.connection import Connected
from amends.client.filters import Where, filter_message
from amends.payloads import encode
from amends.v1 import operator_pb2, saga_pb2
from amends.views import Resolution, SagaView


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """What was done with many sagas: how many were changed (or would be), and how many match and are left.

    `failures` says for each saga that could not be changed, by its id, why not.
    """

    changed: int
    remaining: int
    failures: Mapping[str, str]

    @classmethod
    def of(cls, result: operator_pb2.BulkResult) -> Self:
        failures = MappingProxyType({each.saga_id: each.message for each in result.failures})
        return cls(changed=result.changed_count, remaining=result.remaining_count, failures=failures)


class Control(Connected):
    """The part of a client that steers sagas."""

    async def pause(self, id: str, *, reason: str) -> SagaView:
        """Have nothing new be called for a saga until it is resumed.

        :raises FailedPrecondition: if it has ended.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.PauseSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.repeatable(self._connection.operator.PauseSaga, request)).saga)

    async def resume(self, id: str, *, reason: str) -> SagaView:
        """Have a paused saga go on; one that is not paused stays as it is.

        :raises FailedPrecondition: if it has ended.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.ResumeSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        return SagaView.of((await self._connection.repeatable(self._connection.operator.ResumeSaga, request)).saga)

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

    async def pause_all(
        self, *, reason: str, limit: int = 0, dry_run: bool = False, **where: Unpack[Where]
    ) -> BulkResult:
        """`pause` for the sagas for which all of `where` holds, `limit` at the most; 0 leaves that to the orchestrator.

        With `dry_run` nothing is changed, only counted. Repeat it while `remaining` is not 0.
        """
        request = operator_pb2.PauseSagasRequest(bulk=self._bulk(reason, limit, dry_run, where))
        return BulkResult.of((await self._connection.once(self._connection.operator.PauseSagas, request)).result)

    async def resume_all(
        self, *, reason: str, limit: int = 0, dry_run: bool = False, **where: Unpack[Where]
    ) -> BulkResult:
        """`resume` for many sagas: see `pause_all`."""
        request = operator_pb2.ResumeSagasRequest(bulk=self._bulk(reason, limit, dry_run, where))
        return BulkResult.of((await self._connection.once(self._connection.operator.ResumeSagas, request)).result)

    async def retry_all(
        self, *, reason: str, limit: int = 0, dry_run: bool = False, **where: Unpack[Where]
    ) -> BulkResult:
        """`retry` for many sagas: see `pause_all`."""
        request = operator_pb2.RetrySagasRequest(bulk=self._bulk(reason, limit, dry_run, where))
        return BulkResult.of((await self._connection.once(self._connection.operator.RetrySagas, request)).result)

    async def cancel_all(
        self, *, reason: str, limit: int = 0, dry_run: bool = False, **where: Unpack[Where]
    ) -> BulkResult:
        """`SagaHandle.cancel` for many sagas: see `pause_all`."""
        request = operator_pb2.CancelSagasRequest(bulk=self._bulk(reason, limit, dry_run, where))
        return BulkResult.of((await self._connection.once(self._connection.operator.CancelSagas, request)).result)

    async def fail_all(
        self, *, reason: str, limit: int = 0, dry_run: bool = False, **where: Unpack[Where]
    ) -> BulkResult:
        """`fail` for many sagas: see `pause_all`."""
        request = operator_pb2.FailSagasRequest(bulk=self._bulk(reason, limit, dry_run, where))
        return BulkResult.of((await self._connection.once(self._connection.operator.FailSagas, request)).result)

    async def resolve_all(
        self,
        step: str,
        resolution: Resolution,
        *,
        output: object = None,
        reason: str,
        limit: int = 0,
        dry_run: bool = False,
        **where: Unpack[Where],
    ) -> BulkResult:
        """`resolve` for many sagas: see `pause_all`. Those in which the step cannot be settled so are passed over."""
        request = operator_pb2.ResolveStepsRequest(
            bulk=self._bulk(reason, limit, dry_run, where),
            step=step,
            resolution=saga_pb2.StepResolution.Value(f"STEP_RESOLUTION_{resolution}"),
            output=None if output is None else encode(output),
        )
        return BulkResult.of((await self._connection.once(self._connection.operator.ResolveSteps, request)).result)

    def _bulk(self, reason: str, limit: int, dry_run: bool, where: Where) -> operator_pb2.BulkRequest:
        return operator_pb2.BulkRequest(
            namespace=self._namespace, filter=filter_message(where), limit=limit, reason=reason, dry_run=dry_run
        )
