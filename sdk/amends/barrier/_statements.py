"""The table of the barrier, and every statement on it, for SQLite and for PostgreSQL.

A row is what became of the action with this key:

    begun      its effect is being had, in a transaction that is open still; nobody else ever sees it
    intended   its effect was begun outside the database, and nobody has said yet what became of it
    succeeded  `reply` has its output
    refused    `reply` has the business error; there is no effect
    undoing    its undoing was begun, in a transaction that is open still or outside the database; `reply` has the
               output of the action, if it is known
    undone     there is no effect, and never will be; `reply` is the answer to Compensate, if there was anything to undo

`digest` is that of what the action was called with (see `_digest`); NULL where a version without it has made the row.
`holder` may work on the row until `held_until`, by the clock of the database. Times are seconds since 1970.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Value = str | bytes | float | int | None

TABLE = "amends_barrier"
_PARAMETER = re.compile(r":([a-z_]+)")
_SQLITE = {"now": "((julianday('now') - 2440587.5) * 86400.0)", "bytes": "BLOB", "seconds": "REAL"}
_SQLITE["begin"] = _SQLITE["now"]
_SQLITE["columns"] = "(SELECT name FROM pragma_table_info('{table}'))"
_POSTGRES = {
    "now": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
    "begin": "CAST(extract(epoch FROM now()) AS double precision)",  # of the transaction: can be looked up in an index
    "columns": "(SELECT attname AS name FROM pg_attribute WHERE attrelid = to_regclass('{table}'))",
    "bytes": "bytea",
    "seconds": "double precision",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement in the ways in which drivers want it. Parameters are `:name` in `sqlite` and `postgres`."""

    sqlite: str
    postgres: str
    percent: str
    numbered: str
    names: tuple[str, ...]
    gives_rows: bool


def _statement(text: str) -> Statement:
    postgres = _filled(text, _POSTGRES)
    names = tuple(dict.fromkeys(_PARAMETER.findall(postgres)))
    return Statement(
        sqlite=_filled(text, _SQLITE),
        postgres=postgres,
        percent=_PARAMETER.sub(r"%(\1)s", postgres),
        numbered=_PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", postgres),
        names=names,
        gives_rows="RETURNING" in text or "SELECT" in text,
    )


def _filled(text: str, words: dict[str, str]) -> str:
    for word, instead in words.items():
        text = text.replace(f"{{{word}}}", instead)
    return text.replace("{table}", TABLE)


CREATE_TABLE = _statement("""
CREATE TABLE IF NOT EXISTS {table} (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('begun', 'intended', 'succeeded', 'refused', 'undoing', 'undone')),
    reply {bytes},
    holder TEXT,
    held_until {seconds} NOT NULL DEFAULT 0,
    changed_at {seconds} NOT NULL,
    digest {bytes}
)
""")
CREATE_INDEX = _statement("CREATE INDEX IF NOT EXISTS {table}_changed_at ON {table} (changed_at)")

# Tables of before 0.1.0 have no digests.
FIND_DIGEST = _statement("SELECT 1 FROM {columns} AS columns WHERE name = 'digest'")
ADD_DIGEST = _statement("ALTER TABLE {table} ADD COLUMN digest {bytes}")

# Each of these gives a row if it had an effect, and no row otherwise.
ENTER = _statement("""
INSERT INTO {table} (key, state, digest, changed_at)
VALUES (:key, :state, :digest, {now}) ON CONFLICT (key) DO NOTHING RETURNING key
""")
SETTLE = _statement("""
UPDATE {table} SET state = :state, reply = :reply, changed_at = {now}
WHERE key = :key AND state = :before RETURNING key
""")
UNDO = _statement("""
UPDATE {table} SET state = 'undoing', changed_at = {now}
WHERE key = :key AND state = 'succeeded' RETURNING reply, digest
""")
INTEND = _statement("""
INSERT INTO {table} (key, state, digest, holder, held_until, changed_at)
VALUES (:key, 'intended', :digest, :holder, {now} + :hold_s, {now}) ON CONFLICT (key) DO NOTHING RETURNING key
""")
CLAIM = _statement("""
UPDATE {table} SET state = :state, holder = :holder, held_until = {now} + :hold_s, changed_at = {now}
WHERE key = :key AND state = :before AND held_until <= {now} RETURNING reply, digest
""")
FINISH = _statement("""
UPDATE {table} SET state = :state, reply = :reply, holder = NULL, held_until = 0, changed_at = {now}
WHERE key = :key AND holder = :holder RETURNING key
""")
RELEASE = _statement("""
UPDATE {table} SET holder = NULL, held_until = 0 WHERE key = :key AND holder = :holder RETURNING key
""")
WITHDRAW = _statement("""
DELETE FROM {table} WHERE key = :key AND state = 'intended' AND holder = :holder RETURNING key
""")

READ = _statement("SELECT state, reply, digest FROM {table} WHERE key = :key")

# What is in doubt stays. The age stands twice because a row may change between its being found and its being deleted.
FORGET = _statement("""
DELETE FROM {table}
WHERE changed_at < {begin} - :age_s AND state IN ('succeeded', 'refused', 'undone') AND key IN (
    SELECT key FROM {table}
    WHERE changed_at < {begin} - :age_s AND state IN ('succeeded', 'refused', 'undone') ORDER BY changed_at LIMIT :rows
) RETURNING key
""")
