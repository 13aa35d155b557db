"""What all tests may use: a database server, started once for those that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import CannotRun, Database, postgres


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    try:
        with postgres() as running:
            yield running
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
