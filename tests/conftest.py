"""What holds for all tests, and a database server, started once for those that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import CannotRun, Database, postgres

# How long an example took is the machine's affair: one that stands still for a moment would be taken for a failure.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", PATIENT, derandomize=True)
settings.register_profile("search", PATIENT)  # `pytest --hypothesis-profile=search` looks at other examples each time
settings.load_profile("same")


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    try:
        with postgres() as running:
            yield running
    except CannotRun as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
