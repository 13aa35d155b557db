"""Tasks: who asked for an end."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether a CancelledError is meant for this task: one can also come from what the task only awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
