"""Bulk forms: one command for all sagas that match a filter, so many a call, with an account of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from amends.v1 import operator_pb2 as pb
from amends_server.clock import Clock
from amends_server.config import BULK_LIMIT, BULK_LIMIT_MAX
from amends_server.engine.commands import Cancel, Command, Fail, Pause, Rejected, Resume, Retry
from amends_server.engine.state import SagaStatus
from amends_server.errors import BadField, ServiceError
from amends_server.runner import Runner
from amends_server.service.fields import need_reason, read_namespace
from amends_server.service.filters import read_filter
from amends_server.store.protocol import Cursor, NotFound, SagaFilter, Store, StoredSaga

PAGE_ROWS = 1_000
"""Rows read at a time: counting what remains is reading all that match."""

AT_ONCE = 32
"""Commands under way together: they share the syncs of the disk, and leave room for others."""

_UNFINISHED = frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK})

Steering = Retry | Cancel | Pause | Resume | Fail

_MEANT: dict[type[Steering], frozenset[SagaStatus]] = {
    Retry: frozenset({SagaStatus.STUCK}),
    Cancel: frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.STUCK}),
    Pause: _UNFINISHED,
    Resume: _UNFINISHED,
    Fail: frozenset({SagaStatus.STUCK}),
}
"""Which sagas a command is for if the filter names no statuses."""

_POSSIBLE = _MEANT | {Retry: frozenset({SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK})}
"""Which it can be for at all: a retry cuts a backoff short, but only where that is asked for."""


@dataclass(slots=True)
class _Account:
    changed: int = 0
    remaining: int = 0
    failures: list[pb.BulkFailure] = field(default_factory=list[pb.BulkFailure])

    def has_room(self, limit: int) -> bool:
        return self.changed < limit and len(self.failures) < BULK_LIMIT_MAX


class Bulk:
    """Carries commands out on many sagas."""

    def __init__(self, store: Store, runner: Runner, clock: Clock) -> None:
        self._store = store
        self._runner = runner
        self._clock = clock

    async def run(self, request: pb.BulkRequest, kind: type[Steering], principal: str) -> pb.BulkResult:
        """Carry a command out on what matches, newest first. Sagas that it would not change are passed over.

        The limit counts those that are changed, so that what cannot be changed is in nobody's way.

        :raises BadField: if the request cannot be meant.
        """
        command = kind(_need_reason(request.reason), principal)
        limit = _read_limit(request.limit)
        where = self._read_filter(request, kind)
        account = _Account()
        async for rows in self._matching(where, kind):
            while rows and not request.dry_run and account.has_room(limit):
                some = rows[: min(AT_ONCE, limit - account.changed)]
                rows = rows[len(some) :]
                await asyncio.gather(*(self._command(row, command, account) for row in some))
            account.remaining += len(rows)
        if request.dry_run:
            account.changed = min(limit, account.remaining)
            account.remaining -= account.changed
        return pb.BulkResult(
            changed_count=account.changed, remaining_count=account.remaining, failures=account.failures
        )

    def _read_filter(self, request: pb.BulkRequest, kind: type[Steering]) -> SagaFilter | None:
        """Return what is to be looked for; None if nothing can match."""
        try:
            where = read_filter(read_namespace(request.namespace), request.filter, self._clock.now())
        except BadField as problem:
            violation = problem.violations[0]
            raise BadField(f"bulk.{violation.field}", violation.description) from None
        statuses = where.statuses & _POSSIBLE[kind] if where.statuses else _MEANT[kind]
        return replace(where, statuses=statuses) if statuses else None

    async def _matching(self, where: SagaFilter | None, kind: type[Steering]) -> AsyncGenerator[list[StoredSaga], None]:
        after: Cursor | None = None
        while where is not None and (page := await self._store.list_sagas(where, after, PAGE_ROWS)):
            yield [row for row in page if _applies(row, kind)]
            after = Cursor(page[-1].birth.create_time, page[-1].key.saga_id)

    async def _command(self, row: StoredSaga, command: Command, account: _Account) -> None:
        try:
            view = await self._runner.command(row.key, command)
        except NotFound:  # it was removed meanwhile
            return
        except (Rejected, ServiceError) as problem:
            account.failures.append(pb.BulkFailure(saga_id=row.key.saga_id, message=str(problem)))
            return
        account.changed += view.state.sequence > row.head.sequence


def _applies(row: StoredSaga, kind: type[Steering]) -> bool:
    if kind is Pause:
        return not row.head.paused
    return row.head.paused if kind is Resume else True


def _read_limit(limit: int) -> int:
    if limit < 0:
        raise BadField("bulk.limit", "It must not be negative; 0 is the default.")
    return min(limit or BULK_LIMIT, BULK_LIMIT_MAX)


def _need_reason(reason: str) -> str:
    try:
        return need_reason(reason)
    except BadField as problem:
        raise BadField("bulk.reason", problem.violations[0].description) from None
