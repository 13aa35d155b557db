"""How listings of sagas are read: by the index that has the fewest rows for them, and never far for one page.

No index fits every filter. Where two conditions are common each and rare together, somebody has to look at many rows
for few sagas; so a page ends after `ROWS_LOOKED_AT` of them, whatever it has found, and says where the next goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amends_server.engine.policy import Time
from amends_server.engine.state import SagaStatus
from amends_server.store.protocol import Cursor, SagaFilter, SagaPage, StoredSaga
from amends_server.store.rows import STATUS_CODES, UNFINISHED

ROWS_LOOKED_AT = 2_000
"""More than the largest page has, so that only rare sagas come in pages that are not full; a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of an index, newest first: the rows of a namespace with these values. `index` names the query."""

    index: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a page reads: `rows` are in its stretches from where it begins, as far as they were counted.

    `since` is the oldest time that it reads, None for as far as the filter goes.
    """

    rows: int
    since: Time | None

    @property
    def merit(self) -> tuple[bool, int]:
        """Less is better: few rows to the end, or else the longest time that a page covers."""
        return (False, self.rows) if self.since is None else (True, self.since)


WHOLE = Reach(0, None)
"""Of a page that everything was looked at for."""


def wanted_statuses(where: SagaFilter) -> frozenset[SagaStatus] | None:
    """Return the statuses that a saga may have, none for any; None if no saga can match."""
    if not where.unfinished_only:
        return where.statuses
    return (where.statuses & UNFINISHED if where.statuses else UNFINISHED) or None


def ways_to_list(where: SagaFilter, statuses: frozenset[SagaStatus]) -> list[list[Range]]:
    """Return the stretches by which the sagas can be found, each list of them in a way of its own."""
    ways = [[Range("by_label", {"label_name": name, "label_value": value})] for name, value in where.labels.items()]
    if statuses:
        ways.append([Range("by_status", {"status": code}) for each, code in STATUS_CODES.items() if each in statuses])
    if where.definition_name:
        ways.append([Range("by_definition", {"definition_name": where.definition_name})])
    return ways or [[Range("by_time", {})]]


def rows_counted(way: Sequence[Range], limit: int) -> int:
    """Return how many rows of each stretch are counted: a page of that many sagas must not end before it is full."""
    return max(ROWS_LOOKED_AT // len(way), limit + 1)


def reach_of(counts: Sequence[tuple[int, Time | None]], counted: int) -> Reach:
    """Return how far to read, from each stretch's rows, `counted` at the most, and the oldest of those."""
    ends = [oldest for rows, oldest in counts if rows == counted and oldest is not None]
    return Reach(sum(rows for rows, _ in counts), max(ends, default=None))


def make_page(found: list[StoredSaga], limit: int, reach: Reach) -> SagaPage:
    """Return the page of what was found, which is one saga more than fits on it if there are more."""
    if len(found) > limit:
        last = found[limit - 1]
        return SagaPage(found[:limit], Cursor(last.birth.create_time, last.key.saga_id))
    return SagaPage(found, None if reach.since is None else Cursor(reach.since - 1, ""))
