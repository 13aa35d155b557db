"""Finds work that nobody in memory knows of: sagas whose orchestrator is gone, due times, and failed appends.

Every loop here is a scan of rows, so nothing depends on a timer or a notification that may be lost (I23, I28).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from amends_server.clock import Clock
from amends_server.engine.policy import Time
from amends_server.errors import SagaHalted
from amends_server.runner import Runner
from amends_server.store.protocol import NotFound, SagaKey, Store, StoredSaga, StoreError

PAGE_ROWS = 500
"""Rows read at a time: enough to be quick, few enough to be acted on before they are stale."""

SWEEP_INTERVAL_S = 1.0
"""How often due times are scanned: sagas that are due sooner have timers of their own in memory."""

RETRY_INTERVAL_S = 0.5
"""How long to wait before a store that failed is tried again."""

AT_ONCE_MAX = 64
"""Sagas taken into memory at a time, so that recovery leaves room for new work (I40)."""

log = structlog.stdlib.get_logger(__name__)


class Keeper:
    """The loops that keep sagas going. Begin with `run`; cancel it to stop."""

    def __init__(self, store: Store, runner: Runner, clock: Clock) -> None:
        self._store = store
        self._runner = runner
        self._clock = clock

    async def run(self) -> None:
        """Recover what the last process left, and then keep going until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._until_done(self._recover), name="recover")
            loops.create_task(self._sweep_for_ever(), name="sweep")
            loops.create_task(self._mend_for_ever(), name="mend")

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work over the store, however often that fails."""
        while True:
            try:
                return await work()
            except StoreError as error:
                log.warning("store_failed", error=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _recover(self) -> None:
        after: SagaKey | None = None
        while page := await self._store.list_unfinished(after, PAGE_ROWS):
            await self._wake_all([row.key for row in page if not self._runner.runs(row.key)])
            after = page[-1].key
        log.info("recovered")

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._until_done(self._sweep)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _sweep(self) -> None:
        now = self._clock.now()
        after: tuple[Time, SagaKey] | None = None
        while page := await self._store.list_due(now, after, PAGE_ROWS):
            await self._wake_all([row.key for row in page])
            after = _place(page[-1])

    async def _mend_for_ever(self) -> None:
        while True:
            await self._runner.broke.wait()
            await asyncio.sleep(RETRY_INTERVAL_S)
            await self._until_done(self._runner.mend)

    async def _wake_all(self, keys: list[SagaKey]) -> None:
        for first in range(0, len(keys), AT_ONCE_MAX):
            await asyncio.gather(*(self._wake(key) for key in keys[first : first + AT_ONCE_MAX]))

    async def _wake(self, key: SagaKey) -> None:
        try:
            await self._runner.wake(key)
        except NotFound:
            log.info("saga_gone", namespace=key.namespace, saga_id=key.saga_id)
        except SagaHalted as halt:  # reported where it was found; it stops one saga, not this loop
            log.warning("saga_skipped", namespace=key.namespace, saga_id=key.saga_id, error=str(halt))


def _place(row: StoredSaga) -> tuple[Time, SagaKey]:
    assert row.head.due_time is not None, "a row without due time is not due"
    return row.head.due_time, row.key
