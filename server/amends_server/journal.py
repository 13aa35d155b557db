"""The group commit: appends that gather while one batch is made durable go into the next one.

A lone append is written at once; under load batches grow by themselves, so one sync of the disk serves many sagas.
There are no timers, and an append costs no task and no future: its callback is called when its fate is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from amends_server.store.protocol import Append, SagaKey, Store, StoreError, Unavailable, Unwritable

Done = Callable[[StoreError | None], None]
"""Called in the event loop: with None when the append is durable, else with why it was refused or failed."""

BATCH_APPENDS_MAX = 1_000
"""Appends in one transaction: a sync's cost is shared long before, and it still takes milliseconds."""

BATCH_BYTES_MAX = 8 << 20
"""Of records in one transaction: a sync's cost is small beside theirs by then, and a database behind a slow line still
takes them long before its statements time out, which would fail all appends of the batch, and again and again."""

log = structlog.stdlib.get_logger(__name__)

_Entry = tuple[Append, Done]
_Line = tuple[SagaKey, int]


class Journal:
    """Writes appends to the store in batches, in the order in which they came."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self._writing = 0

    @property
    def pending(self) -> int:
        """Appends whose fate is not known yet."""
        return len(self._queue) + self._writing

    def start(self) -> None:
        """Begin to write; what was appended before is not lost."""
        assert self._writer is None, "a journal is started once"
        self._writer = asyncio.create_task(self._write_all(), name="journal writer")

    async def close(self) -> None:
        """Write what has gathered, then stop. Appends that come later fail. Harmless when repeated."""
        self._closing = True
        self._wake.set()
        if self._writer is None:
            self.start()
        assert self._writer is not None
        await asyncio.shield(self._writer)  # whoever is cancelled here must not tear a commit

    def append(self, append: Append, done: Done) -> None:
        """Queue the append and return at once; `done` is called later, in the order of the appends of a saga.

        Appends to a saga whose earlier append was refused or failed get the same error, if they are of the same epoch:
        they build on records that may not be there. The caller has to read the saga again before it goes on. One of a
        later epoch was decided on what was read since then.
        """
        if self._closing:
            asyncio.get_running_loop().call_soon(_tell, append, done, Unavailable("The journal is closed."))
            return
        self._queue.append((append, done))
        self._wake.set()

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue:
                await self._write_batch()
            self._wake.clear()
            if self._closing:
                return

    async def _write_batch(self) -> None:
        batch = self._take_batch()
        self._writing = len(batch)
        outcomes = await self._commit([append for append, _ in batch])
        orphans = self._take_orphans(
            {_line(append): error for (append, _), error in zip(batch, outcomes, strict=True) if error is not None}
        )
        self._writing = 0
        for (append, done), error in zip(batch, outcomes, strict=True):
            _tell(append, done, error)
        for append, done, error in orphans:
            _tell(append, done, error)

    def _take_batch(self) -> list[_Entry]:
        """Take what goes into one transaction: as many as fit, one in any case, and none past another."""
        batch: list[_Entry] = []
        size = 0
        while self._queue and len(batch) < BATCH_APPENDS_MAX:
            size += sum([len(record.body) for record in self._queue[0][0].records])
            if batch and size > BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _commit(self, appends: list[Append]) -> list[StoreError | None]:
        try:
            return await self._store.commit(appends)
        except Unwritable as error:
            if len(appends) == 1:
                return [error]
            half = len(appends) // 2  # few commits more find the bad ones, and the others are written
            return [*await self._commit(appends[:half]), *await self._commit(appends[half:])]
        except StoreError as error:
            return [error] * len(appends)
        except Exception as error:  # a bug of the store must not silence the journal for good
            log.exception("journal_commit_failed", appends=len(appends))
            return [Unavailable(f"The store failed unexpectedly: {type(error).__name__}.")] * len(appends)

    def _take_orphans(self, failed: dict[_Line, StoreError]) -> list[tuple[Append, Done, StoreError]]:
        """Take out of the queue what builds on failed appends, before a callback can queue something new."""
        if not failed:
            return []
        orphans = [(append, done, failed[_line(append)]) for append, done in self._queue if _line(append) in failed]
        self._queue = deque(entry for entry in self._queue if _line(entry[0]) not in failed)
        return orphans


def _line(append: Append) -> _Line:
    """Return what appends have in common of which each builds on the one before."""
    return append.key, append.head.epoch


def _tell(append: Append, done: Done, error: StoreError | None) -> None:
    try:
        done(error)
    except Exception:  # one saga's bug must not stop all others
        log.exception("journal_callback_failed", namespace=append.key.namespace, saga_id=append.key.saga_id)
