"""The harness of the acceptance tests: real orchestrators, participants that do as told, and raw definitions.

A test reads effects from the `Ledger` of the participants, never from the orchestrator's word.
"""

from __future__ import annotations

from tests.acceptance.harness_answers import (
    UNAVAILABLE,
    Answer,
    Gate,
    die,
    hang,
    in_progress,
    raw,
    refuse,
    status,
    succeed,
    system_error,
)
from tests.acceptance.harness_definitions import THREE, WORKER, definition, rule, step
from tests.acceptance.harness_ledger import WAIT_S, Ledger, Record
from tests.acceptance.harness_orchestrator import SQLITE_ONLY, InProcess, Orchestrator, Process
from tests.acceptance.harness_participant import ScriptedParticipant
from tests.acceptance.harness_world import OVER_BOTH_LINKS, UNARY, Refusal, Wire, World, refusal_of

__all__ = [
    "OVER_BOTH_LINKS",
    "SQLITE_ONLY",
    "THREE",
    "UNARY",
    "UNAVAILABLE",
    "WAIT_S",
    "WORKER",
    "Answer",
    "Gate",
    "InProcess",
    "Ledger",
    "Orchestrator",
    "Process",
    "Record",
    "Refusal",
    "ScriptedParticipant",
    "Wire",
    "World",
    "definition",
    "die",
    "hang",
    "in_progress",
    "raw",
    "refusal_of",
    "refuse",
    "rule",
    "status",
    "step",
    "succeed",
    "system_error",
]
