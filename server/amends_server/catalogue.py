"""The registered definitions, ready to run: each is read from the store and indexed once, then kept."""

from __future__ import annotations

from collections import OrderedDict

from amends_server.convert.definition import definition_from_body
from amends_server.engine.amounts import amounts
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import PAYLOAD_BYTES_MAX
from amends_server.engine.value import dataclass
from amends_server.store.protocol import Store, StoredDefinition

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
    """Finds definitions by name and version or by digest. What a digest names never changes, so it is kept by that."""

    def __init__(self, store: Store, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self._store = store
        self._payload_bytes_max = payload_bytes_max
        self._kept: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._kept_bytes = 0

    async def find(self, namespace: str, *, name: str = "", version: int = 0, digest: str = "") -> Entry:
        """Return a definition. Version 0 is the newest.

        :raises amends_server.store.protocol.NotFound: if there is none.
        """
        kept = self.kept(namespace, digest)
        if kept is not None:
            return kept
        stored = await self._store.get_definition(namespace, name=name, version=version, digest=digest)
        return self._keep(stored)

    def kept(self, namespace: str, digest: str) -> Entry | None:
        """Return a definition if it is in memory."""
        entry = self._kept.get((namespace, digest))
        if entry is not None:
            self._kept.move_to_end((namespace, digest))
        return entry

    async def register(self, definition: StoredDefinition) -> tuple[Entry, bool]:
        """Store a definition that was checked; say whether it is new."""
        stored, created = await self._store.put_definition(definition)
        return self._keep(stored), created

    async def delete(self, namespace: str, digest: str) -> None:
        """Remove a definition.

        :raises amends_server.store.protocol.NotFound: if there is none.
        :raises amends_server.store.protocol.InUse: while a stored saga has it.
        """
        await self._store.delete_definition(namespace, digest)
        self.forget(namespace, digest)

    def forget(self, namespace: str, digest: str) -> None:
        """Read a definition anew when it is wanted again: the store has it no more, or as another version."""
        entry = self._kept.pop((namespace, digest), None)
        if entry is not None:
            self._kept_bytes -= entry.kept_bytes

    def _keep(self, stored: StoredDefinition) -> Entry:
        key = (stored.namespace, stored.digest)
        entry = self._kept.get(key)
        if entry is None or entry.stored.version != stored.version:  # removed and registered again
            graph = build_graph(definition_from_body(stored.body), stored.digest, self._payload_bytes_max)
            self.forget(*key)
            expressions, _ = amounts(graph.definition)
            entry = Entry(stored, graph, len(stored.body) + EXPRESSION_BYTES * expressions)
            self._kept[key] = entry
            self._kept_bytes += entry.kept_bytes
            while self._kept_bytes > KEPT_BYTES_MAX and len(self._kept) > 1:
                self.forget(*next(iter(self._kept)))
        return entry
