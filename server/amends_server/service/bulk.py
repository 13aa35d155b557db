"""Bulk forms: one command for all sagas that match a filter, so many a call, with an account of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, assert_never

from amends.v1 import operator_pb2 as pb
from amends_server.clock import Clock
from amends_server.config import BULK_FAILURES_MAX, BULK_LIMIT, BULK_LIMIT_MAX
from amends_server.engine.commands import Cancel, Fail, Pause, Rejected, Resolve, Resume, Retry
from amends_server.engine.decide import decide, resolutions
from amends_server.engine.state import SagaStatus
from amends_server.errors import BadField, ServiceError
from amends_server.service.fields import read_namespace
from amends_server.service.filters import read_filter
from amends_server.service.steering import Order, Steering
from amends_server.status import PeerRefused
from amends_server.store.protocol import Cursor, NotFound, SagaFilter, Store, StoredSaga

if TYPE_CHECKING:
    Metadata = Iterable[tuple[str, str | bytes]]

PAGE_ROWS = 1_000
"""Rows read at a time: counting what remains is reading all that match."""

AT_ONCE = 32
"""Commands under way together: they share the syncs of the disk, and leave room for others."""

_UNFINISHED = frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK})

_MEANT: dict[type[Order], frozenset[SagaStatus]] = {
    Retry: frozenset({SagaStatus.STUCK}),
    Cancel: frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.STUCK}),
    Pause: _UNFINISHED,
    Resume: _UNFINISHED,
    Fail: frozenset({SagaStatus.STUCK}),
    Resolve: frozenset({SagaStatus.STUCK}),
}
"""Which sagas a command is for if the filter names no statuses."""

_BEGUN = frozenset({SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK})

_POSSIBLE = _MEANT | {Retry: _BEGUN, Resolve: _BEGUN}
"""Which it can be for at all: what waits for its next attempt is retried or settled only where that is asked for."""


@dataclass(slots=True)
class _Account:
    changed: int = 0
    remaining: int = 0
    failures: list[pb.BulkFailure] = field(default_factory=list[pb.BulkFailure])

    def add_failure(self, row: StoredSaga, problem: Exception) -> None:
        """Tell of a saga that cannot be changed, as long as people read on. It is in nobody's way."""
        if len(self.failures) < BULK_FAILURES_MAX:
            self.failures.append(pb.BulkFailure(saga_id=row.key.saga_id, message=str(problem)))


class Bulk:
    """Carries commands out on many sagas, whichever orchestrators run them."""

    def __init__(self, store: Store, steering: Steering, clock: Clock) -> None:
        self._store = store
        self._steering = steering
        self._clock = clock

    async def run(self, request: pb.BulkRequest, order: Order, metadata: Metadata | None) -> pb.BulkResult:
        """Carry a command out on what matches, newest first. Sagas that it would not change are passed over.

        The limit counts those that are changed, so that what cannot be changed is in nobody's way. A dry run decides
        the same on the same sagas, and records nothing. `metadata` is what the caller said of itself, for the
        orchestrators that run the sagas.

        :raises BadField: if the request cannot be meant.
        """
        limit = _read_limit(request.limit)
        account = _Account()
        async for rows in self._matching(self._read_filter(request, order), order):
            while rows and account.changed < limit:
                some = rows[: min(AT_ONCE, limit - account.changed)]
                rows = rows[len(some) :]
                if request.dry_run:
                    await asyncio.gather(*(self._try(row, order, account) for row in some))
                else:
                    await asyncio.gather(*(self._command(row, order, metadata, account) for row in some))
            account.remaining += len(rows)
        return pb.BulkResult(
            changed_count=account.changed, remaining_count=account.remaining, failures=account.failures
        )

    def _read_filter(self, request: pb.BulkRequest, order: Order) -> SagaFilter | None:
        """Return what is to be looked for; None if nothing can match."""
        try:
            where = read_filter(read_namespace(request.namespace), request.filter, self._clock.now())
        except BadField as problem:
            violation = problem.violations[0]
            raise BadField(f"bulk.{violation.field}", violation.description) from None
        statuses = where.statuses & _POSSIBLE[type(order)] if where.statuses else _MEANT[type(order)]
        return replace(where, statuses=statuses) if statuses else None

    async def _matching(self, where: SagaFilter | None, order: Order) -> AsyncGenerator[list[StoredSaga], None]:
        after: Cursor | None = None
        while where is not None:
            page = await self._store.list_sagas(where, after, PAGE_ROWS)
            yield await self._changeable(page.sagas, order)
            if page.after is None:
                return
            after = page.after

    async def _changeable(self, rows: list[StoredSaga], order: Order) -> list[StoredSaga]:
        match order:
            case Pause():
                return [row for row in rows if not row.head.paused]
            case Resume():
                return [row for row in rows if row.head.paused]
            case Resolve():
                return await self._resolvable(rows, order)
            case Retry() | Cancel() | Fail():
                return rows
            case _:
                assert_never(order)

    async def _resolvable(self, rows: list[StoredSaga], order: Resolve) -> list[StoredSaga]:
        """Return those in which the step can be settled so, for which each is read: a row does not say it."""
        found: list[StoredSaga] = []
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            fit = await asyncio.gather(*(self._resolves(row, order) for row in some))
            found += [row for row, fits in zip(some, fit, strict=True) if fits]
        return found

    async def _resolves(self, row: StoredSaga, order: Resolve) -> bool:
        try:
            return order.resolution in resolutions(await self._steering.read(row.key), order.step)
        except NotFound:  # it was removed meanwhile
            return False
        except ServiceError:  # that it cannot be read is told when it is its turn
            return True

    async def _try(self, row: StoredSaga, order: Order, account: _Account) -> None:
        """Find out what a command would do."""
        try:
            events = decide(await self._steering.read(row.key), order, self._clock.now()).events
        except NotFound:  # it was removed meanwhile
            return
        except (Rejected, ServiceError) as problem:
            account.add_failure(row, problem)
            return
        account.changed += bool(events)

    async def _command(self, row: StoredSaga, order: Order, metadata: Metadata | None, account: _Account) -> None:
        try:
            sequence = await self._steering.command(row.key, order, metadata)
        except NotFound:  # it was removed meanwhile
            return
        except (Rejected, ServiceError, PeerRefused) as problem:
            account.add_failure(row, problem)
            return
        account.changed += sequence > row.head.sequence


def _read_limit(limit: int) -> int:
    if limit < 0:
        raise BadField("bulk.limit", "It must not be negative; 0 is the default.")
    return min(limit or BULK_LIMIT, BULK_LIMIT_MAX)
