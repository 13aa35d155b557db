"""What the tests of stores share: appends and definitions with everything filled in that a test does not care about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from amends_server.engine.state import FINAL, SagaStatus
from amends_server.store.protocol import (
    Append,
    Birth,
    Head,
    Record,
    SagaKey,
    Store,
    StoredDefinition,
    StoreError,
    Unavailable,
)

T = TypeVar("T")

NOW = 1_800_000_000_000_000
WAIT_S = 60
AGAIN_S = 0.05


def key(saga_id: str = "one", namespace: str = "default") -> SagaKey:
    return SagaKey(namespace, saga_id)


def records(first: int, count: int = 1, body: bytes = b"body") -> list[Record]:
    return [Record(first + place, "step_done", body) for place in range(count)]


def birth(
    *,
    created: int = NOW,
    definition: tuple[str, int] = ("order", 1),
    digest: str = "",
    labels: Mapping[str, str] | None = None,
) -> Birth:
    name, version = definition
    return Birth(
        definition_name=name,
        definition_version=version,
        definition_digest=digest or f"{name}/{version}",
        fingerprint=b"\x00fingerprint",
        create_time=created,
        labels=labels or {},
    )


def append(
    saga: SagaKey,
    written: Sequence[Record],
    *,
    born: Birth | None = None,
    status: SagaStatus = SagaStatus.RUNNING,
    due: int | None = None,
    epoch: int = 1,
    paused: bool = False,
) -> Append:
    sequence = written[-1].sequence
    return Append(
        key=saga,
        records=written,
        head=Head(
            sequence=sequence,
            epoch=epoch,
            status=status,
            paused=paused,
            due_time=due,
            update_time=NOW + sequence,
            end_time=NOW + sequence if status in FINAL else None,
        ),
        birth=(born or birth()) if written[0].sequence == 1 else None,
    )


def start(saga: SagaKey, born: Birth | None = None, **more: object) -> Append:
    return append(saga, records(1), born=born, **more)  # type: ignore[arg-type]


async def in_the_end(act: Callable[[], Awaitable[T]]) -> T:
    """Act until the store is there, and nobody in the way."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await act()
            except Unavailable:
                await asyncio.sleep(AGAIN_S)


async def written(store: Store, *appends: Append) -> None:
    assert await committed(store, *appends) == [None] * len(appends)


async def committed(store: Store, *appends: Append) -> list[StoreError | None]:
    """Commit a batch to a store that has the definitions of its births."""
    wanted = {(a.key.namespace, a.birth.definition_name, a.birth.definition_version) for a in appends if a.birth}
    for namespace, name, version in wanted:
        await define(store, name, version, namespace)
    return await store.commit(appends)


async def define(store: Store, name: str = "order", versions: int = 1, namespace: str = "default") -> None:
    """Store a definition in so many versions, as `birth` names them."""
    for version in range(1, versions + 1):
        await store.put_definition(definition(name, str(version), namespace))


def definition(name: str = "order", content: str = "a", namespace: str = "default") -> StoredDefinition:
    return StoredDefinition(
        namespace=namespace,
        name=name,
        version=0,
        digest=f"{name}/{content}",
        body=content.encode(),
        create_time=NOW,
    )
