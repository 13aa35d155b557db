"""What a client has registered: each definition once, however many starts wait for it.

A start names its definition by the digest that the orchestrator gave for it. The first start registers the definition,
and others that come meanwhile wait for that. A failure is told to all of them, and the next start tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from amends.client.connection import told_if_closed

KEPT_MAX = 1024  # more definitions than a program has; bounds programs that make definitions as they run


class Registered:
    """A definition that an orchestrator knew. One that it has forgotten gets another, with the same digest or not."""

    __slots__ = ("digest",)

    def __init__(self, digest: str) -> None:
        self.digest = digest


class Registrations:
    """The definitions of a client, by their content. `register` has the orchestrator store one, and returns its digest.

    They are kept by their content and not by the saga, which may have more steps by then.
    """

    def __init__(self, register: Callable[[bytes], Awaitable[str]]) -> None:
        self._register = register
        self._known: dict[bytes, Registered] = {}
        self._under_way: dict[bytes, asyncio.Task[Registered]] = {}

    def known(self, content: bytes) -> Registered | None:
        """The registration of a definition, if there is one."""
        return self._known.get(content)

    async def made(self, content: bytes) -> Registered:
        """The registration of a definition, once there is one.

        :raises RpcError: if it is refused, or cannot be made.
        """
        known = self._known.get(content)
        if known is not None:
            return known
        task = self._under_way.get(content)
        if task is None:
            task = self._under_way[content] = asyncio.create_task(self._make(content))
            # Not in the task, which may be cancelled before it begins: then nobody could ever register that again.
            task.add_done_callback(lambda _: self._under_way.pop(content))
        with told_if_closed():
            return await asyncio.shield(task)  # whoever gives up takes nobody else with them

    async def renewed(self, content: bytes, forgotten: Registered) -> Registered:
        """Another registration than one that the orchestrator does not know any more. Raises what `made` does."""
        if self._known.get(content) is forgotten:  # else somebody else was here before
            del self._known[content]
        return await self.made(content)

    async def close(self) -> None:
        """Give up what is under way. Whoever waits for it gets an AmendsError."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, content: bytes) -> Registered:
        made = self._known[content] = Registered(await self._register(content))
        if len(self._known) > KEPT_MAX:
            del self._known[next(iter(self._known))]
        return made
