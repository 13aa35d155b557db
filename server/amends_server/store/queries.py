"""Named SQL: each store's statements stand in one file, `sql/<store>.sql`."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(store: str) -> dict[str, str]:
    """Return the statements and parts of statements by the names above them; each ends with a line break."""
    text = (files("amends_server.store") / "sql" / f"{store}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    queries = dict(zip(parts[::2], map(_without_comments, parts[1::2]), strict=True))
    assert len(queries) * 2 == len(parts), f"{store}.sql has two queries of one name"
    return queries


def _without_comments(part: str) -> str:
    return "\n".join(line for line in part.splitlines() if line and not line.startswith("--")) + "\n"
