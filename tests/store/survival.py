"""What is there after a store was opened again, or after its process was killed: the same checks for every store.

`python -m tests.store.survival URL` writes to a store until it is killed, and prints what was acknowledged.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from amends_server.journal import Journal
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import SagaFilter, Store, StoreError
from amends_server.store.sqlite import SqliteStore
from tests.sources import ROOT
from tests.store.make import NOW, append, birth, define, definition, key, records, start, written

SAGAS_AT_ONCE = 20


def run(*arguments: object) -> subprocess.Popen[str]:
    """Run Python with these arguments, from the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def stop(process: subprocess.Popen[str]) -> str:
    """Kill a process, and return what it had printed."""
    process.kill()
    out, _ = process.communicate(timeout=20)
    return out


def acknowledged_before_a_kill(url: str, lines: int) -> list[str]:
    """Kill a process that writes once it has said so often that something is durable; return all that it said."""
    writer = run("-m", "tests.store.survival", url)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(lines)]
    acknowledged += [line for line in stop(writer).split("\n")[:-1] if line]
    assert len(acknowledged) >= lines
    return acknowledged


async def assert_all_are_there(store: Store, acknowledged: list[str]) -> None:
    for name in acknowledged:
        assert (await store.get_saga(key(name))).head.sequence == 3
        assert await store.read_records(key(name), 0, 9) == records(1, 3)
    for saga in await store.list_unfinished(None, 99_999):  # i30: what was not acknowledged is without holes too
        assert len(await store.read_records(saga.key, 0, 9)) == saga.head.sequence


async def assert_all_is_there_again(store: Store, again: Store) -> None:
    """Fill an open store and close it; `again`, on the same data, finds everything."""
    await written(store, start(key(), birth(labels={"a": "b"}), due=NOW), append(key(), records(2), due=NOW))
    stored, _ = await store.put_definition(definition())
    await store.close()
    await again.open()
    assert (await again.get_saga(key())).head.sequence == 2
    assert len(await again.read_records(key(), 0, 9)) == 2
    assert len(await again.list_due(NOW, None, 9)) == 1
    assert len((await again.list_sagas(SagaFilter(namespace="default", labels={"a": "b"}), None, 9)).sagas) == 1
    assert await again.get_definition("default", name="order") == stored
    await again.close()


async def _write(url: str) -> None:
    store = PostgresStore(url) if url.startswith("postgresql:") else SqliteStore(Path(url))
    await store.open()
    await define(store)
    journal = Journal(store)
    journal.start()

    def begin(number: int) -> None:
        def born(error: StoreError | None) -> None:
            assert error is None
            journal.append(append(key(f"s{number}"), records(2, 2)), stepped)

        def stepped(error: StoreError | None) -> None:
            assert error is None
            print(f"s{number}", flush=True)
            begin(number + SAGAS_AT_ONCE)

        journal.append(start(key(f"s{number}")), born)

    for number in range(SAGAS_AT_ONCE):
        begin(number)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_write(sys.argv[1]))
