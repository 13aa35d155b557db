"""Finds work that nobody in memory knows of: sagas whose orchestrator is gone, due times, and failed appends.

Every loop here is a scan of rows, so nothing depends on a timer or a notification that may be lost (I23, I28).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

import structlog

from amends_server.clock import Clock
from amends_server.engine.policy import Time
from amends_server.errors import NotOwned, SagaHalted
from amends_server.runner.runner import Runner
from amends_server.store.leases import Ownership
from amends_server.store.protocol import NotFound, SagaKey, Store, StoredSaga, StoreError

PAGE_ROWS = 500
"""Rows read at a time: enough to be quick, few enough to be acted on before they are stale."""

SWEEP_INTERVAL_S = 1.0
"""How often due times are scanned: sagas that are due sooner have timers of their own in memory."""

RETRY_INTERVAL_S = 0.5
"""How long to wait before a store that failed is tried again."""

AT_ONCE_MAX = 64
"""Sagas taken into memory at a time, so that recovery leaves room for new work (I40)."""

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class Keeper:
    """The loops that keep sagas going. Begin with `run`; cancel it to stop."""

    def __init__(self, store: Store, ownership: Ownership, runner: Runner, clock: Clock) -> None:
        self._store = store
        self._ownership = ownership
        self._gained: asyncio.Queue[Collection[int] | None] = asyncio.Queue()
        self._unread: list[SagaKey] = []
        self._runner = runner
        self._clock = clock
        self.found = 0
        """Unfinished sagas in partitions that were gained."""

    def gain(self, partitions: Collection[int] | None) -> None:
        """Have the sagas of these partitions recovered, None for all: nobody else runs them any more."""
        self._gained.put_nowait(partitions)

    async def run(self) -> None:
        """Recover what others left, and keep going until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._recover_for_ever(), name="recover")
            loops.create_task(self._read_again_for_ever(), name="read again")
            loops.create_task(self._sweep_for_ever(), name="sweep")
            loops.create_task(self._mend_for_ever(), name="mend")

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work on the store, however often that fails."""
        while True:
            try:
                return await work()
            except StoreError as error:
                log.warning("store_failed", error=str(error))
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _recover_for_ever(self) -> None:
        while True:
            await self._recover(await self._gained.get())

    async def _recover(self, gained: Collection[int] | None) -> None:
        after: SagaKey | None = None
        while page := await self._patiently(partial(self._store.list_unfinished, after, PAGE_ROWS, gained)):
            keys = [row.key for row in page if not self._runner.runs(row.key)]
            self.found += len(keys)
            unread = await self._wake_all(keys)
            self._unread += unread  # the list of now: it may be another one than before
            after = page[-1].key
        log.info("recovered")

    async def _read_again_for_ever(self) -> None:
        """Wake what could not be read: by itself, for some of it may never be, and others come (I28)."""
        while True:
            await asyncio.sleep(RETRY_INTERVAL_S)
            unread, self._unread = self._unread, []
            unread = await self._wake_all(unread)
            self._unread += unread

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._patiently(self._sweep)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _sweep(self) -> None:
        now = self._clock.now()
        after: tuple[Time, SagaKey] | None = None
        while page := await self._store.list_due(now, after, PAGE_ROWS, self._ownership.partitions):
            await self._wake_all([row.key for row in page if row.key not in self._runner.halts.why])
            after = _place(page[-1])

    async def _mend_for_ever(self) -> None:
        while True:
            await self._runner.mender.broke.wait()
            await asyncio.sleep(RETRY_INTERVAL_S)
            await self._patiently(self._runner.mender.mend)

    async def _wake_all(self, keys: list[SagaKey]) -> list[SagaKey]:
        """Wake sagas as far as there is room for them in memory; return those that could not be read."""
        unread: list[SagaKey] = []
        for first in range(0, len(keys), AT_ONCE_MAX):
            await self._runner.places.room()
            some = keys[first : first + AT_ONCE_MAX]
            read = await asyncio.gather(*(self._wake(key) for key in some))
            unread += [key for key, was_read in zip(some, read, strict=True) if not was_read]
        return unread

    async def _wake(self, key: SagaKey) -> bool:
        """Wake a saga; false if it could not be read, which stops no other."""
        try:
            await self._runner.wake(key)
        except NotOwned:
            log.info("saga_not_owned", namespace=key.namespace, saga_id=key.saga_id)
        except NotFound:
            log.info("saga_gone", namespace=key.namespace, saga_id=key.saga_id)
        except SagaHalted as halt:  # reported where it was found
            log.warning("saga_skipped", namespace=key.namespace, saga_id=key.saga_id, error=str(halt))
        except StoreError as error:
            log.warning("saga_unread", namespace=key.namespace, saga_id=key.saga_id, error=str(error))
            return False
        return True


def _place(row: StoredSaga) -> tuple[Time, SagaKey]:
    assert row.head.due_time is not None, "a row without due time is not due"
    return row.head.due_time, row.key
