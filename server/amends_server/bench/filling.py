"""Files that hold many sagas already, made in a fraction of the time that it takes to run them.

Some sagas are really run; then their journals and heads are written again under new ids by the store's own `commit`, a
thousand a transaction, so that tables, indexes and bytes are those of sagas that were run.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from amends_server.store.protocol import Append, Record, SagaFilter, StoredSaga
from amends_server.store.sqlite import SqliteStore

BATCH = 1_000
NAMESPACE = "default"
APART_US = 1_000
"""Between the creations of two sagas: a thousand a second."""

TEMPLATES_MAX = 1_000
RECORDS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Template:
    """A saga as it was left by an orchestrator."""

    saga: StoredSaga
    records: list[Record]


async def fill(path: Path, count: int) -> None:
    """Add that many sagas to the file, by turns like each of those that it holds."""
    async with opened(path) as store:
        templates = await _templates(store)
        copies = _copies(templates, count)
        while some := [*islice(copies, BATCH)]:
            outcomes = await store.commit(some)
            assert set(outcomes) == {None}, outcomes


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore, None]:
    """Have the store inside the block, while no orchestrator has it."""
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _templates(store: SqliteStore) -> list[Template]:
    page = await store.list_sagas(SagaFilter(namespace=NAMESPACE), None, TEMPLATES_MAX)
    return [Template(saga, await store.read_records(saga.key, 0, RECORDS_MAX)) for saga in page.sagas]


def _copies(templates: Sequence[Template], count: int) -> Iterator[Append]:
    """Copies that are older than their templates, each younger by a little than the one before."""
    end = min(template.saga.birth.create_time for template in templates)
    for number in range(count):
        template = templates[number % len(templates)]
        key = template.saga.key._replace(saga_id=uuid.uuid4().hex)
        birth = replace(template.saga.birth, create_time=end - (count - number) * APART_US)
        yield Append(key=key, records=template.records, head=template.saga.head, birth=birth)
