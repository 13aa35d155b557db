"""Whose sagas are whose: what part of a store this process may write, and under which epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from amends_server.store.protocol import SagaKey

Changed = Callable[[Collection[int] | None], None]
"""Called in the event loop after partitions were gained or lost, with those gained; None for all there are."""

Busy = Callable[[], Collection[SagaKey]]
"""Called before partitions are handed over: returns the sagas in them of which a call is in flight."""


@dataclass(frozen=True, slots=True)
class Renewals:
    """How the renewal of leases goes: attempts that failed, and seconds since one that went well was begun."""

    failed: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Share:
    """Which of how many partitions are owned."""

    partitions: int
    owned: frozenset[int]


class Ownership(Protocol):
    """The sagas that this process owns. Only their owner decides on them, and its writes carry its epoch (I24)."""

    @property
    def id(self) -> str:
        """What this process is called; another one after each start."""
        ...

    @property
    def address(self) -> str:
        """Where others reach this process, empty before `start`."""
        ...

    @property
    def partitions(self) -> Collection[int] | None:
        """The partitions that are owned now, None for all there are."""
        ...

    @property
    def share(self) -> Share | None:
        """What is owned of how much, None where all is."""
        ...

    @property
    def renewals(self) -> Renewals | None:
        """How the renewal of the leases goes, None where there is nothing to renew."""
        ...

    def epoch_of(self, key: SagaKey) -> int:
        """Return the epoch under which this process owns the saga, 0 if it does not or cannot be sure."""
        ...

    def address_of(self, key: SagaKey) -> str:
        """Return where the other process is that owns the saga, empty if there is none, or this one does."""
        ...

    def leaves(self, key: SagaKey) -> bool:
        """Tell whether the saga is owned and about to be handed over: then nothing new is begun for it."""
        ...

    async def start(self, address: str, changed: Changed, busy: Busy) -> None:
        """Begin to own; others reach this process at that address."""
        ...

    def retire(self) -> None:
        """Begin to hand over to others what is at rest, as it comes to rest, and gain nothing any more."""
        ...

    async def stop(self) -> None:
        """Own nothing any more, so that others need not wait. Harmless when repeated."""
        ...


class Sole:
    """The ownership of a store that has one owner: everything, in one epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.id = str(epoch)
        self.address = ""

    @property
    def partitions(self) -> None:
        return None

    @property
    def share(self) -> None:
        return None

    @property
    def renewals(self) -> None:
        return None

    def epoch_of(self, key: SagaKey) -> int:
        return self._epoch

    def address_of(self, key: SagaKey) -> str:
        return ""

    def leaves(self, key: SagaKey) -> bool:
        return False

    async def start(self, address: str, changed: Changed, busy: Busy) -> None:
        self.address = address
        changed(None)

    def retire(self) -> None:
        return

    async def stop(self) -> None:
        return
