"""Tasks that nobody waits for: held, since the event loop alone does not, and ended with whoever made them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

log = structlog.stdlib.get_logger(__name__)


class Tasks:
    """Running tasks. What one raises is logged without its text, which may quote users' data."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def hold(self, work: Coroutine[object, object, None]) -> None:
        """Run something."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._over)

    async def close(self) -> None:
        """Cancel what runs, and wait until it has ended."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("task_broke", error=type(bug).__name__)
