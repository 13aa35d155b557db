"""Users' own definitions in the simulated world: `simulate`, and what it found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amends.definition.builder import Saga
from amends.errors import DefinitionError
from amends.payloads import encode
from amends.testing.simulation.accidents import TIMEOUT_S_MAX
from amends.testing.simulation.dice import NoDice
from amends.testing.simulation.samples import sample
from amends.testing.simulation.seeds import Outcome, run_seed, shrink
from amends.testing.simulation.subject import Subject
from amends.testing.simulation.world import World
from amends.v1 import definition_pb2
from amends_server.convert.definition import read_definition
from amends_server.engine.checks.problem import InvalidDefinition
from amends_server.engine.definition import Compensation, Definition, Step
from amends_server.engine.events import StepFailed
from amends_server.engine.graph import default_retry
from amends_server.engine.policy import COMPENSATION_RETRY, SECOND_US, Retry
from amends_server.engine.value import replace

SEEDS = 200
"""Worlds of one simulation, if nobody says otherwise: a few seconds."""

INTERVAL_S_MAX, DELAY_S_MAX, DEADLINE_S_MAX = 9.0, 12.0, 20.0
"""What long times are shortened to: faults go on for 25 seconds of the simulated world, and all has to meet some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What simulated worlds have shown. `seen` counts how sagas ended and what they met, by name.

    `failed` is the first seed in which a promise was broken, None if all were kept, and `story` is then what happened
    in it, without the faults that did not matter.
    """

    seeds: int
    seen: Mapping[str, int]
    failed: int | None = None
    story: str = ""

    @property
    def ok(self) -> bool:
        """Whether all promises were kept."""
        return self.failed is None

    def __str__(self) -> str:
        if self.failed is not None:
            return f"{self.story}\nseed {self.failed} breaks a promise"
        lines = [f"{count:8}  {what}" for what, count in sorted(self.seen.items())]
        return "\n".join([*lines, f"{self.seeds} seeds, and all promises were kept"])


def simulate(
    saga: Saga[Any, Any] | definition_pb2.Definition | Iterable[Saga[Any, Any] | definition_pb2.Definition],
    input: object = None,
    *,
    outputs: Mapping[str, object] | None = None,
    seeds: int = SEEDS,
    first: int = 0,
) -> Simulated:
    """Run sagas in seeded worlds with a simulated disk, network and clock, where all that may fail does, now and then.

    Their participants are simulated too: behind a barrier, refusing and breaking now and then, and giving what
    `outputs` says by step; other steps give a sample of their output's schema, or who they are. Without an `input`,
    sagas get a sample of its schema. Times that are long are shortened, so that worlds stay short. `seeds` is how many
    worlds there are, from `first` on; the same one is always the same.

    :raises DefinitionError: if a server would not take a definition.
    :raises ValueError: if there is no saga, if `outputs` names a step that there is not, or if a saga does not complete
        when nothing goes wrong: then worlds would show little of it.
    """
    sagas = [saga] if isinstance(saga, Saga | definition_pb2.Definition) else list(saga)
    subject = _subject([_definition(each) for each in sagas], input, outputs)
    seen = Counter[str]()
    for seed in range(first, first + seeds):
        outcome = run_seed(subject, seed)
        seen.update(outcome.seen)
        if outcome.violation:
            return Simulated(seeds=seed - first + 1, seen=seen, failed=seed, story=str(shrink(subject, outcome)))
    return Simulated(seeds=seeds, seen=seen)


def tell(
    definition: definition_pb2.Definition, seed: int, input: object = None, outputs: Mapping[str, object] | None = None
) -> Outcome:
    """Run one world, for its story.

    :raises DefinitionError, ValueError: as `simulate` does.
    """
    return run_seed(_subject([_definition(definition)], input, outputs), seed)


def _subject(definitions: list[Definition], input: object, outputs: Mapping[str, object] | None) -> Subject:
    """:raises ValueError: worlds would show little of these sagas."""
    if not definitions:
        raise ValueError("There is no saga to simulate: give one, or several.")
    steps = {step.id for definition in definitions for step in definition.steps}
    if unknown := sorted((outputs or {}).keys() - steps):
        raise ValueError(f"`outputs` names {', '.join(unknown)}, but the steps are {', '.join(sorted(steps))}.")
    subject = Subject(
        [shorten(each) for each in definitions], input=_input(definitions[0], input), give=_Gives(definitions, outputs)
    )
    for definition in subject.definitions:
        _check_smooth(subject, definition)
    return subject


def _check_smooth(subject: Subject, definition: Definition) -> None:
    """Run a saga with nothing going wrong."""
    world = World(NoDice(0), subject)
    world.run(world.live([(definition, 0.05)], faults_s=1, accidents=False))
    known = next(iter(world.judge.sagas.values()), None)
    status = known.state.status.name if known is not None and known.state is not None else "not started"
    if status != "COMPLETED":
        cause = known.observer.back.cause if known is not None and known.observer.back is not None else None
        why = (
            f"{cause.step or 'its output'}: {cause.error.message}" if isinstance(cause, StepFailed) else world.violation
        )
        raise ValueError(
            f"With nothing going wrong a saga of `{definition.name}` is {status}, not COMPLETED: say what it gets and"
            f" what its steps give, by `input` and `outputs`. {why}\n" + "\n".join(world.story.lines)
        )


class _Gives:
    """The outputs of steps."""

    def __init__(self, definitions: Iterable[Definition], outputs: Mapping[str, object] | None) -> None:
        self._outputs = {step: encode(output).json for step, output in (outputs or {}).items()}
        for step in (step for definition in definitions for step in definition.steps if step.output_schema):
            schema = json.loads(step.output_schema or "")
            self._outputs.setdefault(step.id, json.dumps(sample(schema, schema)))

    def __call__(self, step: str, key: str) -> str:
        return self._outputs.get(step) or json.dumps({"step": step, "key": key})


def shorten(definition: Definition) -> Definition:
    """Return the definition with times that fit into a simulated world; what it does stays the same."""
    return replace(
        definition,
        steps=tuple(_shorten_step(step) for step in definition.steps),
        deadline_us=_least(definition.deadline_us, DEADLINE_S_MAX),
    )


def _shorten_step(step: Step) -> Step:
    return replace(
        step,
        timeout_us=min(step.timeout_us, round(TIMEOUT_S_MAX * SECOND_US)),
        deadline_us=_least(step.deadline_us, DEADLINE_S_MAX),
        delay_us=_least(step.delay_us, DELAY_S_MAX),
        retry=_shorten_retry(step.retry or default_retry(step.kind)),
        compensation=_shorten_compensation(step.compensation),
    )


def _shorten_compensation(compensation: Compensation | None) -> Compensation | None:
    if compensation is None or compensation.not_needed:
        return compensation
    return replace(
        compensation,
        retry=_shorten_retry(compensation.retry or COMPENSATION_RETRY),
        timeout_us=_least(compensation.timeout_us, TIMEOUT_S_MAX),
    )


def _shorten_retry(retry: Retry) -> Retry:
    most_us = round(INTERVAL_S_MAX * SECOND_US)
    return replace(
        retry, interval_us=min(retry.interval_us, most_us), interval_max_us=min(retry.interval_max_us, most_us)
    )


def _least(time_us: int | None, most_s: float) -> int | None:
    return None if time_us is None else min(time_us, round(most_s * SECOND_US))


def _definition(saga: Saga[Any, Any] | definition_pb2.Definition) -> Definition:
    message = saga if isinstance(saga, definition_pb2.Definition) else saga.definition()
    try:
        return read_definition(message, "definition")[0]
    except InvalidDefinition as invalid:
        raise DefinitionError(str(invalid)) from None


def _input(definition: Definition, input: object) -> str:
    if input is not None or not definition.input_schema:
        return encode(input).json or "null"
    schema = json.loads(definition.input_schema)
    return json.dumps(sample(schema, schema))
