"""An event loop without a clock and without I/O: when nothing is ready, time jumps to the next timer.

Every callback belongs to whoever set it up (`OWNER`, by its context). An owner that is dead runs no callback any more,
not even to clean up, as after kill -9; one that is frozen runs them all when it is thawed, as after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

CLEANUP_ROUNDS_MAX = 10
"""How often tasks are cancelled until all have ended: some begin others on their way out."""


class Owner:
    """A process: whose callbacks these are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.held: list[Handle] = []


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""None is the world itself, which neither dies nor freezes."""


class Handle:
    """A callback that is due, now or at a time."""

    __slots__ = ("args", "callback", "context", "off", "owner", "time")

    def __init__(self, time: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self.time, self.callback, self.args, self.context = time, callback, args, context
        self.owner = context.get(OWNER)
        self.off = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off

    def when(self) -> float:
        return self.time


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in the order in which they are due."""

    def __init__(self) -> None:
        self._time = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._tasks: set[asyncio.Task[Any]] = set()  # dead tasks are kept until `close`, or they would clean up
        self._graves: list[Handle] = []
        self._frozen: list[Owner] = []
        self._over = False
        self.problems: list[str] = []

    def time(self) -> float:
        return self._time

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(self._time, callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(when, callback, args, copy_context() if context is None else context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None, **_: Any) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def run(self, work: Coroutine[Any, Any, Any], holds: Callable[[], bool]) -> None:
        """Run until the work has ended, or `holds` is no longer true."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(work)
            while not task.done() and holds() and self._turn():
                pass
            if task.done():
                task.result()
            else:
                assert not holds(), "nothing is left to do, and the world waits"
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """End what is left, dead or alive, with nobody looking."""
        asyncio._set_running_loop(self)
        self._over = True
        try:
            self._ready.extend(self._graves)
            for owner in self._frozen:
                self._ready.extend(owner.held)
            for _ in range(CLEANUP_ROUNDS_MAX):
                for task in list(self._tasks):
                    task.cancel()
                while self._tasks and self._ready:
                    self._timers.clear()
                    self._turn()
            assert not self._tasks, f"tasks that do not end: {self._tasks}"
        finally:
            asyncio._set_running_loop(None)

    def freeze(self, owner: Owner) -> None:
        """Stop an owner where it is."""
        owner.frozen = True
        self._frozen.append(owner)

    def thaw(self, owner: Owner) -> None:
        """Let a frozen owner go on with all that became due meanwhile."""
        owner.frozen = False
        held, owner.held = owner.held, []
        self._ready.extend(held)

    def _turn(self) -> bool:
        """Run one callback; False if there is none."""
        timers = self._timers
        while timers and (timers[0][2].off or (not self._ready and timers[0][0] > self._time)):
            if timers[0][2].off:
                heapq.heappop(timers)
            else:
                self._time = timers[0][0]
        while timers and timers[0][0] <= self._time:
            self._ready.append(heapq.heappop(timers)[2])
        if not self._ready:
            return False
        handle = self._ready.popleft()
        owner = handle.owner
        if handle.off or (owner is not None and not self._over and self._withheld(owner, handle)):
            return True
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.problems.append(f"a callback raised {error!r}")
        return True

    def _withheld(self, owner: Owner, handle: Handle) -> bool:
        if owner.dead:
            self._graves.append(handle)
        elif owner.frozen:
            owner.held.append(handle)
        return owner.dead or owner.frozen
