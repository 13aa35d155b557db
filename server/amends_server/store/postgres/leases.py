"""Leases on partitions: claimed, renewed and handed over in a thread of its own, which a busy event loop cannot starve.

All times of leases are the database's clock. This process only asks its own clock, which never goes back, how long ago
it asked for a renewal: after the length of a lease it owns nothing that it can be sure of, and says so.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import structlog

from amends_server.store.leases import Busy, Changed, Renewals, Share
from amends_server.store.partition import partition_of
from amends_server.store.postgres.servers import connect
from amends_server.store.postgres.statements import commit_durably, fetch
from amends_server.store.postgres.trouble import FAILURES, place_of
from amends_server.store.protocol import SagaKey

RENEWALS = 4
"""In the time of a lease at the least, so that some may fail before it ends."""

LOOK_S = 1.0
"""Until it is looked again whether somebody has handed a partition over: for that long its starts and commands wait."""

HAND_OVER_S = 5.0
"""How long calls in flight may end when another orchestrator has joined and gets their sagas: all sagas in the same
partitions stand still for that."""

REST_S = 0.05
"""Until it is looked again which partitions have come to rest that are to be handed over."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """What is owned: epochs by partition, and until when on this process's clock."""

    epochs: Mapping[int, int]
    until: float


class Leases:
    """The partitions that this process holds. See Ownership for the methods."""

    def __init__(self, url: str, partitions: int, lease_s: float) -> None:
        self._url = url
        self._count = partitions
        self._lease_s = lease_s
        self.id = uuid4().hex
        self.address = ""
        self._held = _Held({}, 0.0)
        self._renewed_at = time.monotonic()
        self._failed = 0
        self._others: Mapping[int, str] = {}
        self._leaving: frozenset[int] = frozenset()
        self._draining: Mapping[int, int] = {}
        self._patience: Mapping[int, float] = {}
        self._left: frozenset[int] = frozenset()
        self._away: Collection[int] = ()
        self._letting_go: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._retiring = False
        self._stop, self._nudged = threading.Event(), threading.Event()
        self._begun = asyncio.Event()
        self._changed: Changed = lambda gained: None
        self._busy: Busy = tuple
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def partitions(self) -> Collection[int]:
        return self._held.epochs.keys() if time.monotonic() < self._held.until else ()

    @property
    def share(self) -> Share:
        return Share(self._count, frozenset(self.partitions))

    @property
    def renewals(self) -> Renewals:
        return Renewals(self._failed, time.monotonic() - self._renewed_at)

    def epoch_of(self, key: SagaKey) -> int:
        held, partition = self._held, partition_of(key, self._count)
        if time.monotonic() >= held.until or partition in self._away:
            return 0
        return held.epochs.get(partition, 0) or self._draining.get(partition, 0)

    def leaves(self, key: SagaKey) -> bool:
        return bool(self._draining) and partition_of(key, self._count) in self._draining

    def address_of(self, key: SagaKey) -> str:
        return "" if self.epoch_of(key) else self._others.get(partition_of(key, self._count), "")

    async def start(self, address: str, changed: Changed, busy: Busy) -> None:
        assert self._thread is None, "leases are started once"
        self.address, self._changed, self._busy, self._loop = address, changed, busy, asyncio.get_running_loop()
        begun = self._begun = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._keep()), name="leases", daemon=True)
        self._thread.start()
        await begun.wait()

    def retire(self) -> None:
        self._retiring = True
        self._nudged.set()

    async def stop(self) -> None:
        self._stop.set()
        self._nudged.set()
        if self._letting_go is not None:
            self._letting_go.cancel()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._lease_s)
            self._thread = None

    def _take(self, gained: Collection[int], leaving: Mapping[int, int]) -> None:
        """Take what the thread tells: partitions that were gained, and all that are to be handed over, with epochs."""
        if self._letting_go is not None:
            self._letting_go.cancel()
        self._away = [id for id in gained if id in self._draining]
        if self._away:  # they stay after all: what was held back is found when they are recovered
            self._changed(())
            self._away = ()
        self._left &= leaving.keys()
        self._draining = {id: epoch for id, epoch in leaving.items() if id not in self._left}
        end = time.monotonic() + HAND_OVER_S
        self._patience = {id: self._patience.get(id, end) for id in self._draining}
        self._changed(gained)
        if self._draining:
            self._letting_go = asyncio.create_task(self._let_go(), name="handing over")

    async def _let_go(self) -> None:
        """Hand over each partition as soon as no call of its sagas is in flight, or that takes too long."""
        while self._draining:
            now = time.monotonic()
            busy = {partition_of(key, self._count) for key in self._busy()}
            # How long the calls of who retires may take in the end, others say.
            waits = {id for id in busy if self._retiring or now < self._patience.get(id, now)}
            at_rest = self._draining.keys() - waits
            if at_rest:
                self._draining = {id: epoch for id, epoch in self._draining.items() if id in waits}
                self._changed(())
                self._left |= at_rest
                self._nudged.set()
            await asyncio.sleep(REST_S)

    # In the thread

    async def _keep(self) -> None:
        db: asyncpg.Connection[asyncpg.Record] | None = None
        while not self._stop.is_set():
            try:
                if db is None or db.is_closed():
                    db = await self._connect()
                    await fetch(db, "forget_the_dead")
                await self._turn(db)
            except FAILURES as error:
                log.warning("leases_not_renewed", store=place_of(self._url), error=str(error) or type(error).__name__)
                self._fail(db)
            except Exception:  # whatever it is, a thread that ends would end this process's ownership for good
                log.exception("leases_failed", store=place_of(self._url))
                self._fail(db)
            self._tell_begun()
            self._nudged.wait(min(self._pause_s, LOOK_S))
            self._nudged.clear()
        if db is not None and not db.is_closed():
            await self._give_up(db)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Connect for statements that end at the server, too, which goes on though its client is gone.

        Well after they have failed here: a commit that waits for a lost standby ends there as if it had gone well.
        """
        db = await connect(self._url, timeout=self._pause_s, command_timeout=self._pause_s)
        try:
            await commit_durably(db)
            await db.execute(f"set statement_timeout to {round(2 * self._pause_s * 1_000)}")
        except BaseException:
            db.terminate()
            raise
        return db

    def _fail(self, db: asyncpg.Connection[asyncpg.Record] | None) -> None:
        self._failed += 1
        if db is not None:
            db.terminate()

    @property
    def _pause_s(self) -> float:
        return self._lease_s / RENEWALS

    async def _turn(self, db: asyncpg.Connection[asyncpg.Record]) -> None:
        """Say that this process lives, renew what it has, and move towards its share."""
        asked = time.monotonic()
        lives_s = 0.0 if self._retiring else self._lease_s  # who retires counts for nothing, and is found all the same
        await fetch(db, "beat", id=self.id, address=self.address, lease_s=lives_s)
        left = self._left & self._leaving  # the event loop has let go of them, and they were not gained since
        if left:
            await fetch(db, "release", owner=self.id, partitions=sorted(left))
        epochs = {row["id"]: row["epoch"] for row in await fetch(db, "renew", owner=self.id, lease_s=self._lease_s)}
        self._renewed_at = asked
        replicas = [row["id"] for row in await fetch(db, "live_replicas")]
        share, until = _share(self._count, replicas, self.id), asked + self._lease_s
        share = 0 if self._retiring else share
        self._others = {row["id"]: row["address"] for row in await fetch(db, "others", owner=self.id)}
        self._keep_share(epochs, share, until)
        if len(epochs) < share:  # last of all, so that whatever holds this up, what was renewed is owned
            for row in await fetch(db, "claim", owner=self.id, lease_s=self._lease_s, limit=share - len(epochs)):
                epochs[row["id"]] = row["epoch"]
            self._keep_share(epochs, share, until)

    def _keep_share(self, epochs: Mapping[int, int], share: int, until: float) -> None:
        """Own as many of these partitions as are this process's to have, until then on its own clock."""
        leaving = frozenset(sorted(epochs)[share:])
        held = _Held({id: epoch for id, epoch in epochs.items() if id not in leaving}, until)
        self._hold(held, {id: epochs[id] for id in leaving})

    def _hold(self, held: _Held, leaving: Mapping[int, int]) -> None:
        """Take what is owned from now on, and have the event loop told if that has changed.

        What was not renewed in time counts as gained, though its epoch is the same: sagas were let go of meanwhile.
        """
        before, self._held = self._held, held
        sure: Mapping[int, int] = before.epochs if time.monotonic() < before.until else {}
        gained = {id for id, epoch in held.epochs.items() if sure.get(id) != epoch}
        stolen = self._leaving - leaving.keys() - held.epochs.keys() - self._left
        # A claim that came late may add what is to be given back at once: then nothing of what is owned has changed.
        if gained or stolen or before.epochs.keys() != held.epochs.keys() or not leaving.keys() <= self._leaving:
            lost = before.epochs.keys() - held.epochs.keys()
            log.info("partitions", owned=len(held.epochs), gained=len(gained), lost=len(lost))
            self._tell(gained, leaving)
        self._leaving = frozenset(leaving)

    def _tell(self, gained: Collection[int], leaving: Mapping[int, int]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, gained, leaving)

    def _tell_begun(self) -> None:
        """Say that the first turn is over, well or not: what can be owned at once is owned."""
        if self._loop is not None and not self._begun.is_set():
            self._loop.call_soon_threadsafe(self._begun.set)

    async def _give_up(self, db: asyncpg.Connection[asyncpg.Record]) -> None:
        self._held = _Held({}, 0.0)
        try:
            await fetch(db, "release_all", owner=self.id)
            await fetch(db, "leave", id=self.id)
            await db.close()
        except FAILURES as error:  # then they are stolen when their time is up
            log.warning("leases_not_released", store=place_of(self._url), error=str(error) or type(error).__name__)
            db.terminate()


def _share(partitions: int, replicas: list[str], me: str) -> int:
    """Return how many partitions a replica is to have: the first ones, by name, take what is left over."""
    place = replicas.index(me) if me in replicas else len(replicas)
    return partitions // max(len(replicas), 1) + (place < partitions % max(len(replicas), 1))
