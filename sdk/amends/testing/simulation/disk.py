"""The store of the simulated world: what is on disk outlives the processes, and what was not committed is lost.

The disk fails in every way in which a real one does: before a commit, after it (done, and reported as failed), for a
while, only for writes because it is full, and by being slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from amends.testing.simulation.lease import PARTITIONS, Lease, part_of
from amends_server.engine.policy import Time
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import (
    Append,
    Cursor,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    Stale,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
    StoreError,
    Unavailable,
)
from amends_server.store.sharing import Sharing

if TYPE_CHECKING:
    from amends.testing.simulation.process import Process
    from amends.testing.simulation.world import World

T = TypeVar("T")


@dataclass
class Part:
    """Who owns a partition, and in which epoch. `over`: the time of the lease is, so that another may take it."""

    epoch: int = 0
    owner: Process | None = None
    over: bool = False

    @property
    def owned(self) -> bool:
        return self.owner is not None and not self.owner.dead and not self.over


class Disk(MemoryStore):
    """What is durable. `appended` is called with every append in the moment in which it becomes so."""

    def __init__(self, appended: Callable[[Append], None]) -> None:
        super().__init__()
        self._appended = appended
        self.down = False
        self.full = False
        self.doubts: dict[SagaKey, str] = {}
        """Sagas of which a commit was reported as failed, and what really became of it."""
        self.parts = [Part() for _ in range(PARTITIONS)]

    def part(self, key: SagaKey) -> Part:
        """Return the partition of a saga."""
        return self.parts[part_of(key)]

    def claim(self, process: Process) -> dict[int, int]:
        """Have a process own all that nobody owns any more, in an epoch of its own."""
        self._epoch += 1
        free = [number for number, part in enumerate(self.parts) if not part.owned]
        for number in free:
            self.parts[number] = Part(self._epoch, process)
        return dict.fromkeys(free, self._epoch)

    def _write(self, append: Append) -> None:
        super()._write(append)
        self._appended(append)

    def spoil(self, key: SagaKey) -> None:
        """Make the last record of a saga unreadable."""
        records = self._sagas[key].records
        records[-1] = Record(records[-1].sequence, records[-1].kind, b"\xff")


class SimulatedStore:
    """A process's way to the disk. See Store for the methods."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._disk = world.disk

    async def open(self) -> None:
        await self._reach()
        await self._disk.open()

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        await self._reach_to_write()

    async def own(self) -> Lease:
        await self._reach_to_write()
        parts = self._disk.parts
        return Lease(self._process.name, self._disk.claim(self._process), lambda number: parts[number].owned)

    async def begin_incarnation(self, now: Time) -> int:
        return await self._disk.begin_incarnation(now)

    async def secret(self) -> bytes:
        return b"simulated"

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        world, process, dice = self._world, self._process, self._world.dice
        about = f"{process.name} {appends[0].key.saga_id} {appends[0].records[0].sequence}"
        delay_s = dice.number(f"sync {about}", 0.0005, 0.003)
        if dice.strikes("slow commit", about, 0.02):
            world.story.see("slow commit")
            delay_s = dice.number(f"slow commit {about}", 0.5, 4.0)
        await world.sleep(delay_s)
        try:
            await self._reach_to_write()
            if dice.strikes("commit fails before", about, 0.03):
                raise Unavailable("The disk did not take it.")
        except Unavailable:
            self._doubt(appends, "absent")
            world.story.see("commit failed before")
            world.story.tell("disk", f"a commit of {len(appends)} fails")
            raise
        if world.effect(process, "crash before a commit"):
            await world.never()
        await world.maybe_overtaken(process, "before a commit", about)
        outcomes = await self._write(appends)
        await world.maybe_overtaken(process, "after a commit", about)
        if world.effect(process, "crash after a commit"):
            await world.never()
        if dice.strikes("commit fails after", about, 0.03):
            self._doubt(appends, "committed")
            world.story.see("commit failed after it was done")
            world.story.tell("disk", f"a commit of {len(appends)} is done and reported as failed")
            raise Unavailable("The disk took it, and says that it did not.")
        return outcomes

    async def _write(self, appends: Sequence[Append]) -> list[StoreError | None]:
        """Write those of the appends whose sagas are their owner's still."""
        valid = [append.head.epoch == self._disk.part(append.key).epoch for append in appends]
        written = iter(await self._disk.commit([a for a, is_valid in zip(appends, valid, strict=True) if is_valid]))
        if not all(valid):
            self._world.story.see(
                "stale write refused beside one that was not" if any(valid) else "stale write refused"
            )
            self._world.story.tell("disk", f"refuses {self._process.name} what others own: {valid.count(False)} writes")
        return [next(written) if is_valid else Stale("Another process owns it.") for is_valid in valid]

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        await self._reach()
        doubt = self._disk.doubts.pop(key, None)
        if doubt is not None:
            self._world.story.see(f"commit unknown resolved as {doubt}")
        saga = await self._disk.get_saga(key)
        await self._world.maybe_overtaken(self._process, "after a read", f"{self._process.name} {key.saga_id}")
        return saga

    async def read_records(self, key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        return await self._read(partial(self._disk.read_records, key, after_sequence, limit))

    async def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> SagaPage:
        return await self._read(partial(self._disk.list_sagas, where, after, limit))

    async def list_due(
        self, until: Time, after: tuple[Time, SagaKey] | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        rows = await self._read(partial(self._disk.list_due, until, after, limit))
        rows = [row for row in rows if within is None or part_of(row.key) in within]
        for row in rows:
            self._process.sweep_finds(row)
        return rows

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        rows = await self._read(partial(self._disk.list_unfinished, after, limit))
        rows = [row for row in rows if within is None or part_of(row.key) in within]
        if rows:
            self._world.effect(self._process, "crash during recovery", 0.04)
        return rows

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        await self._reach_to_write()
        return await self._disk.put_definition(definition)

    async def get_definition(self, namespace: str, **which: Any) -> StoredDefinition:
        return await self._read(partial(self._disk.get_definition, namespace, **which))

    async def list_definitions(
        self, namespace: str, name: str, after: tuple[str, int] | None, limit: int
    ) -> list[StoredDefinition]:
        return await self._read(partial(self._disk.list_definitions, namespace, name, after, limit))

    async def delete_definition(self, namespace: str, digest: str) -> None:
        await self._reach_to_write()
        await self._disk.delete_definition(namespace, digest)

    async def put_participant(self, participant: StoredParticipant) -> None:
        await self._reach_to_write()
        await self._disk.put_participant(participant)

    async def sharing(self, now: Time) -> Sharing:
        return await self._read(partial(self._disk.sharing, now))

    async def list_participants(self) -> list[StoredParticipant]:
        return await self._read(self._disk.list_participants)

    async def delete_participant(self, name: str) -> None:
        await self._reach_to_write()
        await self._disk.delete_participant(name)

    async def _read(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._reach()
        return await work()

    async def _reach(self) -> None:
        """Cross over to the disk: others run meanwhile, and a process that dies never comes back."""
        if self._process.dead:
            await self._world.never()
        await self._world.sleep(0.0002)
        if self._disk.down:
            raise Unavailable("The disk is gone.")

    async def _reach_to_write(self) -> None:
        await self._reach()
        if self._disk.full:
            raise Unavailable("The disk is full.")

    def _doubt(self, appends: Sequence[Append], fate: str) -> None:
        for append in appends:
            self._disk.doubts[append.key] = fate
