"""A process's lease on the simulated disk: another may have taken it long before the process is told so."""

from __future__ import annotations

from amends_server.store.leases import Changed, Quiet
from amends_server.store.protocol import SagaKey


class Lease:
    """The ownership of everything, until `lose`. See Ownership for the methods.

    A real process mostly knows by its clock that its lease is over. This one never does: no clock has to be right.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._lost = False
        self._changed: Changed = lambda gained: None
        self.id = str(epoch)
        self.address = ""

    @property
    def partitions(self) -> tuple[()] | None:
        return () if self._lost else None

    @property
    def share(self) -> None:
        return None

    @property
    def renewals(self) -> None:
        return None

    def epoch_of(self, key: SagaKey) -> int:
        return 0 if self._lost else self._epoch

    def address_of(self, key: SagaKey) -> str:
        return "the other one" if self._lost else ""

    def leaves(self, key: SagaKey) -> bool:
        return False

    async def start(self, address: str, changed: Changed, quiet: Quiet) -> None:
        self._changed = changed
        changed(None)

    async def stop(self) -> None:
        return

    def lose(self) -> None:
        """Tell the process that another one owns everything."""
        self._lost = True
        self._changed(())
