"""Group G: steps that run at the same time, and what becomes of them when one is refused."""

from __future__ import annotations

from amends import SagaStatus, StepStatus
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    Gate,
    Ledger,
    World,
    definition,
    refuse,
    step,
    succeed,
    system_error,
)

BRANCHES = ("left", "middle", "right")
GROUP = definition(
    "group", "first", *(step(name, after=["first"]) for name in BRANCHES), step("last", after=list(BRANCHES))
)


def place(ledger: Ledger, line: str) -> int:
    """Where a line stands in what happened, for example `start undo left`."""
    return ledger.lines().index(line)


@OVER_BOTH_LINKS
async def test_g54_branches_overlap_and_join(world: World) -> None:
    gate = Gate()
    for name in BRANCHES:
        world.worker.on(name, gate.before(succeed({"from": name})))
    made = definition("joined", *GROUP.steps, output={name: f"${{steps.{name}.output.from}}" for name in BRANCHES})
    saga = await world.start(made)
    await world.ledger.until(lambda ledger: len(ledger.calls()) == 4)
    view = await saga.status()
    assert {each.id: each.status for each in view.steps} == {
        "first": StepStatus.SUCCEEDED,
        **dict.fromkeys(BRANCHES, StepStatus.RUNNING),
        "last": StepStatus.PENDING,
    }
    gate.release()
    assert await saga.result() == {name: name for name in BRANCHES}
    lines = world.ledger.lines()
    assert lines[:2] == ["start first", "end first"]
    assert sorted(lines[2:5]) == sorted(f"start {name}" for name in BRANCHES)
    assert sorted(lines[5:8]) == sorted(f"end {name}" for name in BRANCHES)
    assert lines[8:] == ["start last", "end last"]


async def test_g54_the_join_waits_for_the_slowest(world: World) -> None:
    gate = Gate()
    world.worker.on("middle", gate.before())
    saga = await world.start(GROUP)
    await world.until("s", "step_succeeded", "left")
    await world.until("s", "step_succeeded", "right")
    assert "last" not in world.ledger.names()
    gate.release()
    assert (await world.settled(saga)).status is SagaStatus.COMPLETED
    assert world.ledger.lines()[-3:] == ["end middle", "start last", "end last"]


@OVER_BOTH_LINKS
async def test_g54_one_refused_undoes_its_siblings_once_those_in_flight_are_settled(world: World) -> None:
    refusing, working = Gate(), Gate()
    world.worker.on("middle", refusing.before(refuse("NO", "no room")))
    world.worker.on("right", working.before())
    saga = await world.start(GROUP)
    await world.until("s", "step_succeeded", "left")
    await refusing.reached()
    await working.reached()
    refusing.release()
    await world.until("s", "saga_turned_back")
    view = await saga.status()
    assert view.status is SagaStatus.COMPENSATING
    assert view.step("right").status is StepStatus.RUNNING
    assert not {"undo right", "undo first"} & set(world.ledger.names())
    working.release()
    view = await world.settled(saga)
    assert view.status is SagaStatus.COMPENSATED
    assert view.cause is not None
    assert str(view.cause) == "step middle: NO: no room"
    ledger = world.ledger
    assert sorted(ledger.names()) == sorted(["first", *BRANCHES, "undo left", "undo right", "undo first"])
    assert place(ledger, "end right") < place(ledger, "start undo right")
    assert max(place(ledger, "end undo left"), place(ledger, "end undo right")) < place(ledger, "start undo first")
    assert ledger.effects() == []
    assert {each.id: each.status for each in view.steps} == {
        "first": StepStatus.COMPENSATED,
        "left": StepStatus.COMPENSATED,
        "middle": StepStatus.FAILED,
        "right": StepStatus.COMPENSATED,
        "last": StepStatus.PENDING,
    }


async def test_g54_two_refused_siblings_make_one_rollback(world: World) -> None:
    gate = Gate()
    world.worker.on("left", gate.before(refuse("NO_LEFT")))
    world.worker.on("right", gate.before(refuse("NO_RIGHT")))
    saga = await world.start(GROUP)
    await world.until("s", "step_succeeded", "middle")
    await gate.reached(2)
    gate.release()
    view = await world.settled(saga)
    assert view.status is SagaStatus.COMPENSATED
    assert [event.kind.value for event in await world.journal()].count("saga_turned_back") == 1
    assert world.ledger.names()[4:] == ["undo middle", "undo first"]
    assert {str(view.step(name).error) for name in ("left", "right")} == {"NO_LEFT", "NO_RIGHT"}
    assert world.ledger.effects() == []


async def test_g54_a_sibling_that_waits_for_its_retry_is_given_up_and_undone(world: World) -> None:
    gate = Gate()
    world.worker.on("left", gate.before(refuse("NO")))
    world.worker.on("right", system_error(effect=True))
    steps = [step("left", after=[]), step("right", after=[], interval_s=60, interval_max_s=60)]
    saga = await world.start(definition("d", *steps))
    await world.until("s", "step_retry_scheduled", "right")
    gate.release()
    view = await world.settled(saga)
    assert view.status is SagaStatus.COMPENSATED
    assert world.ledger.calls(name="right")[-1].attempt == 1
    assert world.ledger.names()[2:] == ["undo right"]
    assert world.ledger.effects() == []


async def test_g54_undoing_is_in_reverse_of_the_definition_whatever_the_order_of_the_answers(world: World) -> None:
    """a1 → a2 and b1 → b2 beside each other, then a join that is refused; b's branch is done long before a's."""
    gate = Gate()
    world.worker.on("a1", gate.before())
    world.worker.on("join", refuse("NO"))
    made = definition(
        "branches",
        step("a1", after=[]),
        step("a2", after=["a1"]),
        step("b1", after=[]),
        step("b2", after=["b1"]),
        step("join", after=["a2", "b2"]),
    )
    saga = await world.start(made)
    await world.until("s", "step_succeeded", "b2")
    gate.release()
    assert (await world.settled(saga)).status is SagaStatus.COMPENSATED
    for before, after in (("a2", "a1"), ("b2", "b1")):
        assert place(world.ledger, f"end undo {before}") < place(world.ledger, f"start undo {after}")
    assert world.ledger.effects() == []
    assert len(world.ledger.names()) == 9
