"""Who still needs a participant."""

from __future__ import annotations

from amends_server.catalogue import Catalogue
from amends_server.store.protocol import NotFound, SagaKey, Store

PAGE_ROWS = 1_000
"""Rows read at a time; whoever removes a participant can wait for all of them."""


class Usage:
    """Looks through the unfinished sagas."""

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def unfinished_saga_with(self, participant: str) -> SagaKey | None:
        """Return an unfinished saga whose definition names the participant, if there is one."""
        after: SagaKey | None = None
        free: set[tuple[str, str]] = set()
        while page := await self._store.list_unfinished(after, PAGE_ROWS):
            for row in page:
                definition = (row.key.namespace, row.birth.definition_digest)
                if definition not in free:
                    if await self._names(definition, participant):
                        return row.key
                    free.add(definition)
            after = page[-1].key
        return None

    async def _names(self, definition: tuple[str, str], participant: str) -> bool:
        namespace, digest = definition
        try:
            entry = await self._catalogue.find(namespace, digest=digest)
        except NotFound:  # its sagas are halted and call nobody
            return False
        return any(step.participant == participant for step in entry.graph.definition.steps)
