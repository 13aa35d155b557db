"""Answers to attempts whose time was up: recorded, though nobody waits for them any more, and they change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from amends_server.engine.commands import Settle, Verdict
from amends_server.errors import ServiceError
from amends_server.store.protocol import SagaKey, StoreError
from amends_server.tasks import Tasks
from amends_server.transport.attempts import LateCall

log = structlog.stdlib.get_logger(__name__)


class LateReplies:
    """Hands answers to `command`. Their sagas may have been dropped from memory meanwhile."""

    def __init__(self, command: Callable[[SagaKey, Settle], Awaitable[object]]) -> None:
        self._command = command
        self._tasks = Tasks()

    def take(self, call: LateCall, verdict: Verdict) -> None:
        """Take an answer."""
        settle = Settle(call.step, call.compensation, call.attempt, verdict)
        self._tasks.hold(self._record(SagaKey(call.namespace, call.saga_id), settle))

    async def close(self) -> None:
        """Let go of answers that are not recorded yet."""
        await self._tasks.close()

    async def _record(self, key: SagaKey, settle: Settle) -> None:
        try:
            await self._command(key, settle)
        except (StoreError, ServiceError) as error:  # it changes nothing, so that nothing hangs on it
            log.info("late_reply_not_recorded", namespace=key.namespace, saga_id=key.saga_id, error=str(error))
