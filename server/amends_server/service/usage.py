"""Who still needs a participant."""

from __future__ import annotations

from amends_server.catalogue import Catalogue
from amends_server.store.protocol import SagaKey, Store

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
        while page := await self._store.list_unfinished(after, PAGE_ROWS):
            for row in page:
                entry = await self._catalogue.find(row.key.namespace, digest=row.birth.definition_digest)
                if any(step.participant == participant for step in entry.graph.definition.steps):
                    return row.key
            after = page[-1].key
        return None
