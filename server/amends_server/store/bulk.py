"""Many rows in one statement.

Python's sqlite3 lets go of the interpreter lock at every row of `executemany`, and while the event loop is busy it gets
the lock back only after the switch interval: a batch of a thousand rows then takes seconds. A statement of many rows
lets go once. Rows of nulls fill it up to one of a few sizes, so that few different statements are prepared, and once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

from amends_server.store.rows import Row

_ROWS_MAX = 512
"""Rows in one statement: SQLite takes 32,766 values, and a row has up to 17."""

_ROWS_STEP = 64
"""Sizes of statements are powers of two up to here, then multiples of this: no more than that is filled up in vain."""


def execute_rows(db: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> int:
    """Run the statement with all rows in place of its `{rows}`, and return how many rows it changed.

    It has to leave out rows of nulls.
    """
    before = db.total_changes  # a cursor's rowcount knows nothing of statements that begin with "with"
    for some in _pieces(rows):
        db.execute(_expanded(sql, len(some), len(some[0])), [*chain.from_iterable(some)])
    return db.total_changes - before


def select_rows(db: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> Iterator[str]:
    """Run the query with all rows in place of its `{rows}`; it gives one text for each piece that they are cut into."""
    for some in _pieces(rows):
        (text,) = db.execute(_expanded(sql, len(some), len(some[0])), [*chain.from_iterable(some)]).fetchone()
        yield text


def _pieces(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _ROWS_MAX):
        some = rows[start : start + _ROWS_MAX]
        nothing = (None,) * len(some[0])
        yield [*some, *[nothing] * (_size(len(some)) - len(some))]


def _size(rows: int) -> int:
    """Return the size of statement that so many rows go into."""
    return 1 << (rows - 1).bit_length() if rows < _ROWS_STEP else -(-rows // _ROWS_STEP) * _ROWS_STEP


@lru_cache(maxsize=256)
def _expanded(sql: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return sql.replace("{rows}", ", ".join([row] * rows))
