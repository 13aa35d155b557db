"""What a deliberate fault is, and the tests that most of them are caught by."""

from __future__ import annotations

from dataclasses import dataclass

SERVER = "server/amends_server/"
SEEDS = "tests/simulation/test_simulation.py::test_no_seed_breaks_an_invariant_and_all_rare_states_are_seen"
CRASHES = "tests/simulation/test_crash_points.py::test_i32_a_crash_at_any_effect_is_recovered_from"
WORLDS = "tests/engine/test_properties.py::test_no_world_breaks_an_invariant"
RUNNER = "tests/server/test_runner.py::"
LETS_GO = "tests/server/test_runner_lets_go.py::"
FOUND = "tests/server/test_runner_found.py::"
CORNERS = "tests/engine/test_corner_cases.py::"
SAGAS = "tests/store/test_store_sagas.py::"
RULE = "sdk/amends/barrier/_rule.py"
CONTRACT = "tests/barrier/test_barrier_contract.py::"
LEASES = "tests/store/test_leases.py::"
GIVEN_BACK = "tests/sessions/test_given_back.py::"
CATALOGUE = "tests/server/test_catalogue.py::"
EACH_TOLD = "tests/sessions/test_each_is_told.py::"
SESSIONS = "tests/sessions/test_client_sessions.py::"
GOLDEN = "tests/engine/test_golden.py::test_history"


@dataclass(frozen=True)
class Mutant:
    """A fault: what is wrong, where, the source and what stands there instead, and who notices. `quick`: in seconds."""

    name: str
    path: str
    source: str
    instead: str
    caught_by: str
    quick: bool = False
