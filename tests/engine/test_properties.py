"""The engine against random definitions in a random world: I1-I9, I12, I17, I21, I22 and I30 after every decision.

AMENDS_EXAMPLES multiplies the number of examples; AMENDS_SHRINK=0 leaves a failing one as it is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from amends_server.engine import history
from amends_server.engine.checks.validation import check
from amends_server.engine.definition import Definition, ErrorRule, OnError, digest
from amends_server.engine.graph import build_graph
from amends_server.engine.state import SagaStatus
from tests.engine.strategies import FALSE, any_definitions, sound_definitions
from tests.engine.world import World

FACTOR = float(os.environ.get("AMENDS_EXAMPLES", "1"))
SEEDED = st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 1 << 32), st.integers(50, 400))
TAPES = SEEDED | SEEDED | st.binary(max_size=160)  # the last ones shrink well, and are too smooth to find much

PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("AMENDS_SHRINK", "1") != "0"]


def examples(count: int) -> settings:
    """So many examples, which print how to reproduce a failure; each is a whole saga."""
    large = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=int(count * FACTOR), print_blob=True, suppress_health_check=large, phases=PHASES)


def run(definition: Definition, tape: bytes, *, slow: bool = False) -> World:
    log: list[str] = []
    try:
        world = World(build_graph(definition, digest(definition)), tape, log, slow=slow)
        world.run()
    finally:
        note("\n".join(log))
    return world


@examples(2000)
@given(sound_definitions(), TAPES)
def test_no_world_breaks_an_invariant(definition: Definition, tape: bytes) -> None:
    assert check(definition) == []
    run(definition, tape)


@examples(200)
@given(sound_definitions(), TAPES)
def test_no_world_breaks_an_invariant_when_histories_must_be_short(definition: Definition, tape: bytes) -> None:
    """Attempts, questions and repairs end anywhere, and a saga ends or is STUCK all the same; and so is its history."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("EVENTS_MAX", "EVENTS_PER_STEP_MAX", "ROOM_BACK", "ROOM_BACK_PER_STEP", "ROOM_REPAIRS"):
            patch.setattr(history, limit, 2)
        world = run(definition, tape)
    assert len(world.journal) <= 12 + 40 * len(definition.steps)


@examples(300)
@given(sound_definitions(), TAPES)
def test_no_world_of_long_work_breaks_an_invariant(definition: Definition, tape: bytes) -> None:
    """What is refused is tried again, the answers get lost, and each word is said again, long after."""
    again = (ErrorRule(codes=(), when=None, then=OnError.RETRY, output_template=None),)
    run(replace(definition, steps=tuple(replace(step, on_error=again) for step in definition.steps)), tape, slow=True)


@examples(150)
@given(sound_definitions())
def test_in_a_smooth_world_a_saga_ends(definition: Definition) -> None:
    """Only what leads nowhere can stop it, or a delay beyond its deadline: then it is undone, or stuck."""
    state = run(definition, b"").state
    stops = "missing" in repr(definition) or any(step.when == FALSE for step in definition.steps)
    late = definition.deadline_us is not None and any(step.delay_us for step in definition.steps)
    if stops or late:
        assert state.final or state.status is SagaStatus.STUCK
    else:
        assert state.status is SagaStatus.COMPLETED


@examples(400)
@given(any_definitions(), TAPES)
def test_a_definition_without_errors_can_run(definition: Definition, tape: bytes) -> None:
    if not check(definition):
        run(definition, tape)
