"""The store in a PostgreSQL database. See docs/postgresql.md for what it relies on, and what it does not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from functools import partial

from amends_server.engine.policy import Time
from amends_server.store.incarnation import epoch_before_next
from amends_server.store.migration import Migration, load_migrations
from amends_server.store.partition import partition_of
from amends_server.store.postgres import registry, sagas
from amends_server.store.postgres.connections import Connections
from amends_server.store.postgres.leases import Leases
from amends_server.store.postgres.schema import migrate, missing
from amends_server.store.postgres.servers import to_writer
from amends_server.store.postgres.sharing import sharing
from amends_server.store.postgres.statements import Db, fetch, texts
from amends_server.store.protocol import (
    SECRET_BYTES,
    Append,
    Cursor,
    Record,
    SagaFilter,
    SagaKey,
    SagaPage,
    StoredDefinition,
    StoredParticipant,
    StoredSaga,
    StoreError,
)
from amends_server.store.sharing import Sharing

_CHANGES = texts(("count_up",), ("newest_epoch",), ("set_epochs",), ("keep_secret",), ("read_secret",), ("settle",))
"""What runs in all other transactions."""

LEASE_S = 10.0
"""How long sagas stay where they are after their orchestrator has died: long enough for a pause of the machine."""


class PostgresStore:
    """Keeps everything in the database at that URL. See Store for the methods.

    What is appended under another epoch than that of the partition's owner is refused as stale.
    """

    def __init__(self, url: str, lease_s: float = LEASE_S) -> None:
        self._url = to_writer(url)
        # Whoever is stopped inside a transaction must not keep others from its partitions when its lease is over.
        self._connections = Connections(
            self._url, transaction_s=lease_s, commits=sagas.COMMIT, writes=(*registry.CHANGES, *_CHANGES)
        )
        self._lease_s = lease_s
        self._partitions = 0
        self._doubts: dict[int, object] = {}
        self._settling: asyncio.Task[None] | None = None

    async def pending(self) -> list[Migration]:
        """Return the migrations that `open` would make.

        :raises Unavailable: as `open` does.
        """
        await self._connections.open()
        try:
            return await missing(self._connections, load_migrations("postgres"))
        finally:
            await self._connections.close()

    async def open(self) -> None:
        await self._connections.open()
        try:
            await migrate(self._connections, load_migrations("postgres"))
            self._partitions = await self._connections.read(_count_partitions)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._connections.close()

    async def check(self) -> None:
        await self._connections.write(partial(_count_up, "checks"))

    async def own(self) -> Leases:
        return Leases(self._url, self._partitions, self._lease_s)

    async def begin_incarnation(self, now: Time) -> int:
        async def begin(db: Db) -> int:
            ((newest,),) = await fetch(db, "newest_epoch")
            epoch = epoch_before_next(newest, now)
            await fetch(db, "set_epochs", epoch=epoch)
            return epoch

        return await self._connections.write(begin)

    async def secret(self) -> bytes:
        async def keep(db: Db) -> bytes:
            await fetch(db, "keep_secret", value=secrets.token_bytes(SECRET_BYTES))
            (row,) = await fetch(db, "read_secret")
            return bytes(row["value"])

        return await self._connections.write(keep)

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        try:
            return await self._connections.commit(partial(sagas.commit, appends, self._partitions))
        except BaseException:
            self._doubts |= dict.fromkeys((partition_of(append.key, self._partitions) for append in appends), object())
            raise

    async def _settle(self, partition: int) -> None:
        """Wait until a commit that failed is over: though nobody hears of it any more, it may still become durable."""
        while partition in self._doubts:
            if self._settling is None:  # one for all who wait, so that they leave connections to others
                self._settling = asyncio.ensure_future(self._settle_all())
                self._settling.add_done_callback(self._settled)
            await asyncio.shield(self._settling)

    async def _settle_all(self) -> None:
        doubts = dict(self._doubts)
        await self._connections.write(partial(sagas.settle, doubts))
        for partition, doubt in doubts.items():
            if self._doubts.get(partition) is doubt:  # and no other commit failed meanwhile
                del self._doubts[partition]

    def _settled(self, settling: asyncio.Task[None]) -> None:
        self._settling = None
        if not settling.cancelled():
            settling.exception()  # whoever still waits is told, and who reads next tries again

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        await self._settle(partition_of(key, self._partitions))
        return await self._connections.read(partial(sagas.get_saga, key))

    async def read_records(self, key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        return await self._connections.read(
            partial(sagas.read_records, key, after_sequence + 1, after_sequence + limit)
        )  # fmt: skip

    async def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> SagaPage:
        return await self._connections.read(partial(sagas.list_sagas, where, after, limit))

    async def list_due(
        self, until: Time, after: tuple[Time, SagaKey] | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        return await self._connections.read(partial(sagas.list_due, until, after, limit, self._all(within)))

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        return await self._connections.read(partial(sagas.list_unfinished, after, limit, self._all(within)))

    def _all(self, within: Collection[int] | None) -> Collection[int]:
        return range(self._partitions) if within is None else within

    async def sharing(self, now: Time) -> Sharing:
        return await self._connections.read(partial(sharing, now))

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        return await self._connections.write(partial(registry.put_definition, definition))

    async def get_definition(
        self, namespace: str, *, name: str = "", version: int = 0, digest: str = ""
    ) -> StoredDefinition:
        return await self._connections.read(partial(registry.get_definition, namespace, name, version, digest))

    async def list_definitions(
        self, namespace: str, name: str, after: tuple[str, int] | None, limit: int
    ) -> list[StoredDefinition]:
        return await self._connections.read(partial(registry.list_definitions, namespace, name, after, limit))

    async def delete_definition(self, namespace: str, digest: str) -> None:
        await self._connections.write(partial(registry.delete_definition, namespace, digest))

    async def put_participant(self, participant: StoredParticipant) -> None:
        await self._connections.write(partial(registry.put_participant, participant))

    async def list_participants(self) -> list[StoredParticipant]:
        return await self._connections.read(registry.list_participants)

    async def delete_participant(self, name: str) -> None:
        await self._connections.write(partial(registry.delete_participant, name))


async def _count_up(name: str, db: Db) -> int:
    ((value,),) = await fetch(db, "count_up", name=name)
    return int(value)


async def _count_partitions(db: Db) -> int:
    ((count,),) = await fetch(db, "partitions")
    return int(count)
