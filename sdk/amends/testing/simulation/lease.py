"""A process's lease on parts of the simulated disk: another may have taken them long before the process is told so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from amends_server.store.leases import Busy, Changed
from amends_server.store.partition import partition_of
from amends_server.store.protocol import SagaKey

PARTITIONS = 3
"""Few sagas are in a world, and most parts shall have one."""


def part_of(key: SagaKey) -> int:
    """Return the partition of a saga."""
    return partition_of(key, PARTITIONS)


class Lease:
    """The ownership of partitions, by their epochs, until they are lost. See Ownership for the methods.

    A real process mostly knows by its clock that its lease is over. This one never does: no clock has to be right.
    `has_owner` tells whether a process that lives has a partition.
    """

    def __init__(self, name: str, epochs: Mapping[int, int], has_owner: Callable[[int], bool]) -> None:
        self._epochs = dict(epochs)
        self._has_owner = has_owner
        self._unsure = False
        self._changed: Changed = lambda gained: None
        self.id = name
        self.address = ""

    @property
    def partitions(self) -> Collection[int] | None:
        if self._unsure:
            return ()
        return None if len(self._epochs) == PARTITIONS else self._epochs.keys()

    @property
    def share(self) -> None:
        return None

    @property
    def renewals(self) -> None:
        return None

    def epoch_of(self, key: SagaKey) -> int:
        return 0 if self._unsure else self._epochs.get(part_of(key), 0)

    def address_of(self, key: SagaKey) -> str:
        part = part_of(key)
        return "the other one" if part not in self._epochs and self._has_owner(part) else ""

    def leaves(self, key: SagaKey) -> bool:
        return False

    async def start(self, address: str, changed: Changed, busy: Busy) -> None:
        self._changed = changed
        changed(list(self._epochs))

    def retire(self) -> None:
        return

    async def stop(self) -> None:
        return

    def gain(self, epochs: Mapping[int, int]) -> None:
        """Tell the process that it owns more."""
        self._epochs |= epochs
        self._changed(list(epochs))

    def lose(self, partitions: Collection[int]) -> None:
        """Tell the process that another one owns these."""
        for partition in partitions:
            self._epochs.pop(partition, None)
        self._changed(())

    def doubt(self) -> None:
        """Be sure of nothing any more, as after a renewal that failed; nobody is told of that."""
        self._unsure = True

    def renew(self) -> None:
        """Be sure again. Whatever was let go of meanwhile has to be looked for."""
        self._unsure = False
        self._changed(list(self._epochs))
