"""The test kit: sagas run in a test, with no server, no network, no files and no real time."""

from __future__ import annotations

from amends.testing._calls import ExpectedCall, ExpectedCompensation
from amends.testing.orchestrator import Orchestrator, given
from amends.testing.scenario import Scenario

__all__ = ["ExpectedCall", "ExpectedCompensation", "Orchestrator", "Scenario", "given"]
