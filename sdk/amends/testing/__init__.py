"""The test kit: sagas run in a test, with no server, no network, no files and no real time."""

from __future__ import annotations

from amends.testing._calls import ExpectedCall, ExpectedCompensation
from amends.testing.check import check_every_failure
from amends.testing.faults import Case, Fault, Siblings
from amends.testing.ledger import Ledger
from amends.testing.orchestrator import Orchestrator, given
from amends.testing.report import Finding, Report, Run
from amends.testing.scenario import Scenario
from amends.testing.simulation.users import Simulated, simulate

__all__ = [
    "Case",
    "ExpectedCall",
    "ExpectedCompensation",
    "Fault",
    "Finding",
    "Ledger",
    "Orchestrator",
    "Report",
    "Run",
    "Scenario",
    "Siblings",
    "Simulated",
    "check_every_failure",
    "given",
    "simulate",
]
