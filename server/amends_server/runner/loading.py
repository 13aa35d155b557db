"""Sagas on their way into memory: several may wait for one, and it comes once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from amends_server.runner.active import ActiveSaga
from amends_server.store.protocol import SagaKey


class Loading:
    """The sagas that are being read. `activate` reads one, and puts it where the others are."""

    def __init__(self, activate: Callable[[SagaKey], Awaitable[ActiveSaga]]) -> None:
        self._activate = activate
        self._tasks: dict[SagaKey, asyncio.Task[ActiveSaga]] = {}

    def __contains__(self, key: SagaKey) -> bool:
        return key in self._tasks

    async def load(self, key: SagaKey) -> ActiveSaga:
        """Return the saga. One that waits and is cancelled does not speak for the others."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(self._load(key))
            task.add_done_callback(_look)
        return await asyncio.shield(task)

    async def _load(self, key: SagaKey) -> ActiveSaga:
        try:
            return await self._activate(key)
        finally:
            del self._tasks[key]  # at once: one that nobody waits for may have left memory before its task is over

    async def wait(self, key: SagaKey) -> None:
        """Wait until the saga is not on its way, whether it came or not."""
        while key in self._tasks:
            await asyncio.wait([self._tasks[key]])


def _look(task: asyncio.Task[ActiveSaga]) -> None:
    """Look at how it ended: whoever waited for it may all have been cancelled, and then nobody asks."""
    if not task.cancelled():
        task.exception()
