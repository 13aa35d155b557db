"""The test kit against a real server: the same saga has the same journal, and what is refused is refused alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

import amends
from amends import PIVOT, Event, Participant, Retry, Saga
from amends.testing import Orchestrator, given
from tests.acceptance.harness import WORKER, World, in_progress, refuse, system_error


@dataclass
class Parcel:
    sku: str
    weight: int = 1


worker = Participant(WORKER)
one = worker.declare("one", Parcel, compensation=True)
two = worker.declare("two", Parcel, compensation=True)
three = worker.declare("three", Parcel)


def delivery() -> Saga[Parcel, dict[str, object]]:
    saga = Saga("delivery", input=Parcel)
    saga.step(one)
    saga.step(two, retry=Retry(attempts=3, interval=0.01))
    saga.step(three, kind=PIVOT)
    return saga


def told(events: Iterable[Event]) -> list[tuple[object, ...]]:
    return [(event.kind, event.step, event.attempt, event.error and event.error.code) for event in events]


async def test_a_scenario_has_the_journal_that_the_server_writes(world: World) -> None:
    world.worker.on("two", system_error("BROKEN", effect=True), in_progress(0.1), refuse("NO"))
    world.worker.on("undo two", system_error("BROKEN"), refuse("NOT_YET"))
    scenario = given(delivery(), Parcel("tea")).expect(one).replies(None).expect(two).fails().when_due()
    scenario.expect(two).replies_later(poll=0.1).when_due().expect(two).refuses("NO")
    scenario.expect_compensation(two).fails().when_due().expect_compensation(two).refuses("NOT_YET").stuck(two)
    scenario.resolve("two", amends.Resolution.COMPENSATED, reason="done by hand").expect_compensated([one])

    saga = await world.client.start(delivery(), Parcel("tea"), id="s")
    assert (await world.settled(saga)).status is amends.SagaStatus.STUCK
    await world.client.resolve("s", "two", amends.Resolution.COMPENSATED, reason="done by hand")
    assert (await world.settled(saga)).status is amends.SagaStatus.COMPENSATED
    named = [(k, s, a, "SYSTEM_ERROR" if e == "BROKEN" else e) for k, s, a, e in told(await world.journal())]
    assert told(scenario.journal) == named


WRONG: dict[str, Callable[[], dict[str, object]]] = {
    "an input of another type": lambda: {"input": Parcel("tea", weight="heavy")},  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "no input": lambda: {"input": None},
    "an input that is too large": lambda: {"input": Parcel("x" * (1 << 20))},
    "a label without name": lambda: {"input": Parcel("tea"), "labels": {"": "x"}},
    "an id that is too long": lambda: {"input": Parcel("tea"), "id": "x" * 1000},
    "an id that is taken": lambda: {"input": Parcel("coffee"), "id": "taken"},
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_start_is_refused_alike(world: World, what: str) -> None:
    orchestrator = Orchestrator()
    orchestrator.start(delivery(), Parcel("tea"), id="taken")
    await world.client.start(delivery(), Parcel("tea"), id="taken")
    options = {"id": "s"} | WRONG[what]()
    with pytest.raises(amends.RpcError) as here:
        orchestrator.start(delivery(), **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(amends.RpcError) as there:
        await world.client.start(delivery(), **options)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert type(here.value) is type(there.value)
    assert (here.value.reason, here.value.violations) == (there.value.reason, there.value.violations)
    assert (here.value.saga_id, str(here.value)) == (there.value.saga_id, str(there.value))


async def test_a_command_is_refused_alike(world: World) -> None:
    world.worker.on("one", refuse("NO"))
    scenario = given(delivery(), Parcel("tea")).expect(one).refuses("NO").compensated()
    await world.settled(await world.client.start(delivery(), Parcel("tea"), id="s"))
    for here, there in (
        (scenario.pause, world.client.pause("s", reason="x")),
        (scenario.retry, world.client.retry("s", reason="x")),
        (scenario.fail, world.client.fail("s", reason="x")),
        (
            lambda: scenario.resolve("four", amends.Resolution.SKIPPED),
            world.client.resolve("s", "four", amends.Resolution.SKIPPED, reason="x"),
        ),
    ):
        with pytest.raises(amends.RpcError) as refused_here:
            here()
        with pytest.raises(amends.RpcError) as refused_there:
            await there
        assert type(refused_here.value) is type(refused_there.value)
        assert refused_here.value.reason == refused_there.value.reason
        assert str(refused_here.value) == str(refused_there.value)
