"""Scenarios in which the process dies at every effect: commits, sends, answers and acknowledgements, before and after.

A scenario is a world without luck. It is run once to count its effects, and then once for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import grpc

from amends.testing.simulation.clients import NAMESPACE, UNANSWERED
from amends.testing.simulation.dice import NoDice
from amends.testing.simulation.process import CallFailed
from amends.testing.simulation.world import World
from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from amends_server.engine.definition import Definition
from amends_server.store.protocol import SagaKey
from tests.simulation.definitions import SUBJECT, named

KEY = SagaKey(NAMESPACE, "saga-1")
FAULTS_S = 14.0
"""Every scenario is over by then, also when its process was dead for a second."""

AGAIN_S = 0.3


@dataclass(frozen=True)
class Scenario:
    """A saga that meets these replies, and what people do to it at which time.

    `troubles` are the kinds of faults that participants and network answer with, by the call: once each.
    """

    name: str
    definition: Definition
    troubles: dict[str, str] = field(default_factory=dict[str, str])
    people: tuple[tuple[float, str], ...] = ()
    pairs: bool = False


class Fixed(NoDice):
    """Nothing happens but what a scenario says: each trouble once."""

    def __init__(self, troubles: dict[str, str]) -> None:
        super().__init__(0)
        self._left = dict(troubles)

    def strikes(self, kind: str, about: str, chance: float) -> bool:
        if self._left.get(about) == kind:
            del self._left[about]
            return True
        return False


def _undo(step: str, kind: str) -> dict[str, str]:
    return {f"default/saga-1/{step}/compensate": kind}


def _do(step: str, kind: str) -> dict[str, str]:
    return {f"default/saga-1/{step}/execute": kind}


SCENARIOS = (
    Scenario("one step", named("one"), pairs=True),
    Scenario("two steps", named("two"), pairs=True),
    Scenario("refused", named("two"), _do("b", "refused"), pairs=True),
    Scenario("retried", named("three"), _do("b", "system error")),
    Scenario("no answer", named("two"), {"Execute saga-1/b #1": "answer lost"}),
    Scenario("side by side", named("diamond"), _do("d", "refused")),
    Scenario("pivot refused", named("pivot"), _do("b", "refused"), pairs=True),
    Scenario("pivot without answer", named("pivot"), {"Execute saga-1/b #1": "answer lost"}),
    Scenario("cancelled", named("three"), {"Execute saga-1/b #1": "answer late"}, ((0.1, "cancel"),)),
    Scenario("deadline", named("deadline"), {f"Execute saga-1/b #{n}": "half-open" for n in (1, 2, 3)}),
    Scenario("undo refused", named("two"), _do("b", "refused") | _undo("a", "compensation refused")),
    Scenario("undo refused, going on", named("continue"), _do("c", "refused") | _undo("b", "compensation refused")),
    Scenario("nothing to undo", named("free"), _do("d", "refused")),
    Scenario("data", named("data"), {"Execute saga-1/b #1": "status before"}),
    Scenario("paused", named("two"), {}, ((0.065, "pause"), (1.0, "resume"))),
    Scenario("resolved", named("once"), _do("b", "refused") | _undo("a", "compensation refused"), ((2.0, "resolve"),)),
)


def run(scenario: Scenario, *crash_at: int) -> World:
    """Run a scenario with its process killed at these effects, counted from 1."""
    world = World(Fixed(scenario.troubles), SUBJECT, crash_at=frozenset(crash_at))
    world.run(_play(world, scenario))
    return world


def points(scenario: Scenario) -> Iterator[tuple[int, ...]]:
    """Return every place to die in, and where a scenario says so, every two."""
    count = len(run(scenario).effects)
    yield from ((n,) for n in range(1, count + 1))
    if scenario.pairs:
        yield from combinations(range(1, count + 2), 2)  # the second one is counted after the first


async def _play(world: World, scenario: Scenario) -> None:
    for at_s, deed in scenario.people:
        world.background(_person(world, at_s, deed), "person")
    await world.live([(scenario.definition, 0.02)], faults_s=FAULTS_S, accidents=False)


async def _person(world: World, at_s: float, deed: str) -> None:
    """Do one thing, as often as it takes to be answered."""
    await world.sleep(at_s)
    saga_id, reason = KEY.saga_id, "simulated"
    while True:
        try:
            match deed:
                case "cancel":
                    await _cancel(world)
                case "pause":
                    request = operator_pb2.PauseSagaRequest(saga_id=saga_id, reason=reason)
                    await world.caller.call("operator", "PauseSaga", request)
                case "resume":
                    resume = operator_pb2.ResumeSagaRequest(saga_id=saga_id, reason=reason)
                    await world.caller.call("operator", "ResumeSaga", resume)
                case _:
                    resolution = saga_pb2.STEP_RESOLUTION_COMPENSATED
                    resolve = operator_pb2.ResolveStepRequest(
                        saga_id=saga_id, step="a", resolution=resolution, reason=reason
                    )
                    await world.caller.call("operator", "ResolveStep", resolve)
        except CallFailed as failed:
            if failed.code is grpc.StatusCode.FAILED_PRECONDITION:
                world.judge.rejected(KEY, failed.reason)
            elif failed.code in UNANSWERED or failed.code is grpc.StatusCode.NOT_FOUND:  # not started yet
                await world.sleep(AGAIN_S)
                continue
            else:
                world.fail(f"{deed} was answered {failed}")
        return


async def _cancel(world: World) -> None:
    await world.caller.call("operator", "CancelSaga", orchestrator_pb2.CancelSagaRequest(saga_id=KEY.saga_id))
    world.judge.cancel_accepted(KEY)
