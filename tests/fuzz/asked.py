"""What only requests bring about in a server: the events that they have written, and which requests still run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from amends.v1.operator_pb2_grpc import OperatorServiceServicer
from amends.v1.orchestrator_pb2_grpc import OrchestratorServiceServicer
from amends_server.app import Server
from amends_server.codec import to_wire
from amends_server.store.protocol import Append, Record, SagaKey, Store, StoreError

COMMANDED = frozenset({"saga_paused", "saga_resumed", "saga_retried", "step_resolved", "saga_failed"})
"""Events that are there because somebody has asked for them; a saga that turns back says whether that is why."""

LOOK_S = 0.001


class Asked:
    """Looks over a server's shoulder, from before it starts. `events` are those that requests have written."""

    def __init__(self, server: Server, store: Store) -> None:
        self.events: set[str] = set()
        self._journal = server._parts._journal
        self._running = 0
        self._commit = store.commit
        store.commit = self._note  # type: ignore[method-assign]
        parts = server._parts
        for service, kind in (
            (parts.orchestrator, OrchestratorServiceServicer),
            (parts.operator, OperatorServiceServicer),
        ):
            for method in vars(kind):
                if not method.startswith("_") and method not in ("Session", "WatchSaga"):  # these only read, or stay
                    self._count(service, method)

    async def rest(self) -> None:
        """Wait until no request runs, and all that they have led to is stored."""
        while self._running or self._journal.pending:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_S)

    def _count(self, service: Any, method: str) -> None:
        do = getattr(service, method)

        async def counted(request: object, context: object) -> object:
            self._running += 1
            try:
                return await do(request, context)
            finally:
                self._running -= 1

        setattr(service, method, counted)

    async def _note(self, appends: Sequence[Append]) -> list[StoreError | None]:
        outcomes = await self._commit(appends)
        for append, refused in zip(appends, outcomes, strict=True):
            if refused is None:
                self.events |= {
                    f"event {append.key.namespace}/{append.key.saga_id}/{record.sequence} {record.kind}"
                    for record in append.records
                    if _was_asked_for(append.key, record)
                }
        return outcomes


def _was_asked_for(key: SagaKey, record: Record) -> bool:
    if record.kind == "saga_turned_back":
        return to_wire(key, record).saga_turned_back.cause.WhichOneof("kind") in ("cancel", "operator")
    return record.kind in COMMANDED
