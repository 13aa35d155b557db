"""The registered definitions, ready to run: each is read from the store and indexed once, then kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import TypeVar

from amends_server.convert.definition import definition_from_body
from amends_server.engine.checks.amounts import amounts
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import PAYLOAD_BYTES_MAX
from amends_server.engine.value import dataclass
from amends_server.store.protocol import Store, StoredDefinition

T = TypeVar("T")

KEPT_BYTES_MAX = 2 << 20
"""Of the definitions kept in memory, as they are stored; ready to run they take 20 to 40 times that. It is room for
thousands of a few steps; what is dropped is read again.
"""

EXPRESSION_BYTES = 1_000
"""What an expression counts for beside its text: with variables of its own it takes 0.1 MB."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A definition as stored, and its graph. `kept_bytes` is what it counts for in memory."""

    stored: StoredDefinition
    graph: Graph
    kept_bytes: int = 0


class Catalogue:
    """Finds definitions by name and version or by digest. What a digest names never changes, so it is kept by that.

    Nor does what a version of a name is, for none is given twice. Which version is the newest is known only where
    nobody else can register another: `sole` says that this process alone has the store.
    """

    def __init__(self, store: Store, payload_bytes_max: int = PAYLOAD_BYTES_MAX, *, sole: bool = False) -> None:
        self._store = store
        self._payload_bytes_max = payload_bytes_max
        self._sole = sole
        self._kept: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._kept_bytes = 0
        self._versions: dict[tuple[str, str, int], str] = {}
        """The digests of those kept; under version 0, of the newest one."""
        self._changes = 0
        self._changing: set[asyncio.Task[object]] = set()

    async def find(self, namespace: str, *, name: str = "", version: int = 0, digest: str = "") -> Entry:
        """Return a definition. Version 0 is the newest.

        :raises amends_server.store.protocol.NotFound: if there is none.
        """
        kept = self.kept(namespace, digest)
        if kept is not None:
            return kept
        changes = self._changes
        stored = await self._store.get_definition(namespace, name=name, version=version, digest=digest)
        entry = self._keep(stored)
        if self._sole and not digest and not version and changes == self._changes:  # else it may be old news by now
            self._versions[namespace, name, 0] = stored.digest
        return entry

    def kept(self, namespace: str, digest: str) -> Entry | None:
        """Return a definition if it is in memory."""
        entry = self._kept.get((namespace, digest))
        if entry is not None:
            self._kept.move_to_end((namespace, digest))
        return entry

    def named(self, namespace: str, name: str, version: int) -> Entry | None:
        """Return a definition if it is in memory, and certain to be that version of the name; 0 is the newest.

        It may have been removed, as any that is in memory.
        """
        digest = self._versions.get((namespace, name, version))
        return None if digest is None else self.kept(namespace, digest)

    async def register(self, definition: StoredDefinition) -> tuple[Entry, bool]:
        """Store a definition that was checked; say whether it is new."""
        work = self._store.put_definition(definition)
        stored, created = await self._change(definition.namespace, definition.name, work)
        return self._keep(stored), created

    async def delete(self, stored: StoredDefinition) -> None:
        """Remove a definition.

        :raises amends_server.store.protocol.NotFound: if there is none.
        :raises amends_server.store.protocol.InUse: while a stored saga has it.
        """
        work = self._store.delete_definition(stored.namespace, stored.digest)
        await self._change(stored.namespace, stored.name, work)
        self.forget(stored.namespace, stored.digest)

    async def _change(self, namespace: str, name: str, work: Coroutine[object, object, T]) -> T:
        """Write to the store, and look the newest version of a name up again from then on.

        A write goes on when whoever wanted it gives up: so does what has to follow it.
        """

        async def change() -> T:
            try:
                return await work
            finally:  # whatever came of it
                self._changes += 1
                self._versions.pop((namespace, name, 0), None)

        task: asyncio.Task[T] = asyncio.create_task(change())
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return await asyncio.shield(task)

    def forget(self, namespace: str, digest: str) -> None:
        """Read a definition anew when it is wanted again: the store has it no more, or as another version."""
        entry = self._kept.pop((namespace, digest), None)
        if entry is not None:
            self._kept_bytes -= entry.kept_bytes
            for version in (0, entry.stored.version):
                if self._versions.get((namespace, entry.stored.name, version)) == digest:
                    del self._versions[namespace, entry.stored.name, version]

    def _keep(self, stored: StoredDefinition) -> Entry:
        key = (stored.namespace, stored.digest)
        entry = self._kept.get(key)
        if entry is None or entry.stored.version != stored.version:  # removed and registered again
            graph = build_graph(definition_from_body(stored.body), stored.digest, self._payload_bytes_max)
            self.forget(*key)
            expressions, _ = amounts(graph.definition)
            entry = Entry(stored, graph, len(stored.body) + EXPRESSION_BYTES * expressions)
            self._kept[key] = entry
            self._versions[stored.namespace, stored.name, stored.version] = stored.digest
            self._kept_bytes += entry.kept_bytes
            while self._kept_bytes > KEPT_BYTES_MAX and len(self._kept) > 1:
                self.forget(*next(iter(self._kept)))
        return entry
