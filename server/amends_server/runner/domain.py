"""The sagas that this process may run, as its services and its runner ask for them."""

from __future__ import annotations

import asyncio

from amends_server.clock import Clock
from amends_server.config import TAKEOVER_S
from amends_server.errors import NotOwned
from amends_server.ids import new_id
from amends_server.store.leases import Ownership, Share
from amends_server.store.protocol import SagaKey

POLL_S = 0.1
"""Until it is looked again whether a saga has an owner by now."""

NEW_ID_ATTEMPTS = 1_000
"""With a hundred orchestrators, one id in a hundred is their own; whoever owns nothing finds none."""


class Domain:
    """What an ownership means for sagas by name."""

    def __init__(self, ownership: Ownership, clock: Clock) -> None:
        self._ownership = ownership
        self._clock = clock
        self._holding = False

    def epoch_of(self, key: SagaKey) -> int:
        """Return the epoch under which this process runs the saga, 0 if it does not."""
        return self._ownership.epoch_of(key)

    def need(self, key: SagaKey) -> int:
        """Return the epoch under which this process runs the saga.

        :raises NotOwned: if it does not.
        """
        epoch = self._ownership.epoch_of(key)
        if not epoch:
            raise NotOwned(key.namespace, key.saga_id)
        return epoch

    def hold(self) -> None:
        """From now on hold all sagas: the process is about to end."""
        self._holding = True

    def holds(self, key: SagaKey) -> bool:
        """Tell whether of this saga only outcomes are recorded: another process goes on with it."""
        return self._holding or self._ownership.leaves(key)

    def owns(self, key: SagaKey) -> bool:
        """Tell whether this process runs the saga, or will when there is something to do."""
        return self._ownership.epoch_of(key) != 0

    @property
    def share(self) -> Share | None:
        """The part of the sagas that this process runs, and new ones with them; None where it runs all."""
        share = self._ownership.share
        return share if share is None or not self._holding else Share(share.partitions, frozenset())

    def new_id(self, namespace: str) -> str:
        """Make an id for a saga that this process is to run."""
        saga_id = new_id(self._clock.now())
        for _ in range(NEW_ID_ATTEMPTS):
            if self.owns(SagaKey(namespace, saga_id)):
                break
            saga_id = new_id(self._clock.now())
        return saga_id

    async def until_owned(self, key: SagaKey) -> None:
        """Wait for this process to take a saga over whose orchestrator is gone.

        :raises NotOwned: if another one has it, or if nobody takes it.
        """
        if self.owns(key):  # nearly always
            return
        try:
            async with asyncio.timeout(TAKEOVER_S):
                while not self.owns(key):
                    if self._ownership.address_of(key):
                        raise NotOwned(key.namespace, key.saga_id)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise NotOwned(key.namespace, key.saga_id) from None
