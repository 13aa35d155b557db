"""What one decision may read and make: sizes, sharing, and what waits when it is too much at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from amends_server.engine.commands import Cancel, Pause, Resume, Settle, Succeeded, Wake
from amends_server.engine.data import jsonvalue, making
from amends_server.engine.decide import Decision, decide, start
from amends_server.engine.definition import Compensation, Definition, Kind, Step
from amends_server.engine.due import due
from amends_server.engine.events import (
    CompensationDispatched,
    Event,
    SagaCompleted,
    SagaStarted,
    StepDelayed,
    StepDispatched,
    StepRefused,
)
from amends_server.engine.evolve import fold
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import Json
from amends_server.engine.state import SagaStatus, State, StepStatus

LIMIT = 1_000


def graph(*steps: Step, output: str | None = None) -> Graph:
    return build_graph(Definition(name="d", steps=steps, output_template=output), "digest", LIMIT)


def step(step_id: str, *after: str, template: str | None = None, arguments: str | None = None) -> Step:
    undo = Compensation(template=arguments)
    return Step(
        id=step_id, participant="p", action="a", after=after, input_template=template, compensation=undo
    )  # fmt: skip


def started(text: str) -> SagaStarted:
    return SagaStarted(time=1, namespace="n", saga_id="s", definition_digest="digest", input=Json(text))


def test_i42_an_input_that_templates_blow_up_fails_its_step_before_its_call() -> None:
    template = json.dumps(["${input.text}"] * 5)
    events, state = start(graph(step("a", template=template)), started(json.dumps({"text": "x" * 300})))
    assert [type(event).__name__ for event in events] == [
        "SagaStarted", "StepRefused", "SagaTurnedBack", "SagaCompensated",
    ]  # fmt: skip
    error = state.step("a").action.error
    assert error is not None
    assert error.code == "INPUT_INVALID"
    assert "1000 bytes" in error.message
    fits, _ = start(graph(step("a", template=template)), started(json.dumps({"text": "x" * 190})))
    assert isinstance(fits[-1], StepDispatched)


@pytest.mark.parametrize("text", ["\u00e4" * 600, "\n" * 600])
def test_i42_a_payload_is_measured_as_it_is_written(text: str) -> None:
    events, _ = start(graph(step("a", template='{"v":"${input}"}')), started(json.dumps(text)))
    assert isinstance(events[1], StepRefused)


def test_i42_an_output_that_is_too_large_turns_the_saga_back() -> None:
    _, state = start(graph(step("a"), output='["${input}","${input}"]'), started(json.dumps("x" * 600)))
    _, state = decide(state, Settle("a", False, 1, Succeeded(Json("1"))), 2)
    assert state.status is SagaStatus.COMPENSATING


def test_i42_what_is_shared_in_memory_is_counted_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = jsonvalue.to_json
    monkeypatch.setattr(making, "to_json", lambda value: written.append(1) or write(value))
    template = json.dumps(["${input}"] * 10_000)
    events, _ = start(graph(step("a", template=template)), started(json.dumps(["x" * 10] * 70)))
    assert isinstance(events[1], StepRefused)
    assert written == []


def test_i42_one_decision_parses_each_payload_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    parse = jsonvalue.parse_json

    def counted(text: str) -> jsonvalue.JsonValue:
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(making, "parse_json", counted)
    steps = [step(f"s{i}", template='{"a":"${input.x}","b":"${input.x + 1}"}') for i in range(50)]
    events, _ = start(graph(*steps), started('{"x":1}'))
    assert len(events) == 51
    assert texts == ['{"x":1}']


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions that may read and make three payloads."""
    monkeypatch.setattr(making, "AT_ONCE_BYTES_MAX", 3_000)


def wide(count: int = 9, **more: Any) -> list[Step]:
    """Steps side by side, each of which makes a payload of the largest size."""
    return [replace(step(f"s{i}", template='["${input.x}"]'), **more) for i in range(count)]


LARGE = started(json.dumps({"x": "x" * 900}))


def catch_up(decision: Decision, *, crash: bool = False) -> tuple[list[list[Event]], State]:
    """Make the decisions that are due at once, as the runner does; with `crash`, each by another orchestrator."""
    decided, (events, state) = [decision.events], decision
    while (next_time := due(state).next_time) is not None and next_time <= state.update_time:
        if crash:
            state = fold(state.graph, [event for events in decided for event in events])
        events, state = decide(state, Wake(), state.update_time)
        assert events, "it goes round in circles"
        decided.append(events)
    return decided, state


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"requires": ("input.x",)},
        {"when": "size(input.x) > 5"},
        {"when": "size(input.x) > 5", "requires": ("input.x",)},
    ],
    ids=["input", "requires", "condition", "all"],
)
def test_i42_steps_that_would_make_too_much_at_once_wait_for_their_turn(more: dict[str, Any], crash: bool) -> None:
    decided, state = catch_up(start(graph(*wide(**more)), LARGE), crash=crash)
    made = [sum(isinstance(event, StepDispatched) for event in events) for events in decided]
    assert sum(made) == 9
    assert all(0 < count <= 3 for count in made)
    assert sum(isinstance(event, StepDelayed) for events in decided for event in events) <= 9, "each is put off once"
    assert all(each.input == Json(json.dumps(["x" * 900], separators=(",", ":"))) for each in state.steps)
    for i in range(9):
        _, state = decide(state, Settle(f"s{i}", False, 1, Succeeded(Json("1"))), 2)
    assert state.status is SagaStatus.COMPLETED


@pytest.mark.usefixtures("tight")
def test_i42_a_condition_that_has_to_wait_is_told_in_its_turn_and_delays_are_kept() -> None:
    """Each condition reads a payload of its own, so that a decision cannot tell all of them."""
    sources = [step(f"a{i}") for i in range(6)]
    asking = [
        replace(step(f"b{i}", *(s.id for s in sources)), when=f"size(steps.a{i}.output) > {900 * (i % 2)}", delay_us=50)
        for i in range(6)
    ]
    _, state = start(graph(*sources, *asking), started("{}"))
    for i in range(5):
        _, state = decide(state, Settle(f"a{i}", False, 1, Succeeded(Json(json.dumps("x" * 900)))), 2)
    decided, state = catch_up(decide(state, Settle("a5", False, 1, Succeeded(Json(json.dumps("x" * 900)))), 2))
    assert not any(isinstance(event, StepDispatched) for events in decided for event in events), "no delay is over"
    begun: set[str] = set()
    for _ in range(9):
        events, state = decide(state, Wake(), 60)
        begun |= {event.step for event in events if isinstance(event, StepDispatched)}
    assert begun == {"b0", "b2", "b4"}
    assert [state.step(f"b{i}").status for i in (1, 3, 5)] == [StepStatus.SKIPPED] * 3


@pytest.mark.usefixtures("tight")
def test_i42_a_step_whose_turn_has_not_come_is_dropped_when_the_saga_turns_back() -> None:
    _, state = start(graph(*wide()), LARGE)
    waiting = [node.step.id for node in state.graph.nodes if state.steps[node.index].status is StepStatus.PENDING]
    assert waiting
    _, state = decide(state, Cancel("reason", "me"), 1)
    for i in range(9):
        if state.step(f"s{i}").action.open:
            _, state = decide(state, Settle(f"s{i}", False, 1, Succeeded(Json("1"))), 2)
    for i in range(9):
        if state.step(f"s{i}").compensation.open:
            _, state = decide(state, Settle(f"s{i}", True, 1, Succeeded()), 3)
    assert state.status is SagaStatus.COMPENSATED
    assert all(state.step(step_id).status is StepStatus.PENDING for step_id in waiting)


@pytest.mark.usefixtures("tight")
def test_i42_pausing_keeps_a_turn() -> None:
    _, state = start(graph(*wide()), LARGE)
    _, state = decide(state, Pause("reason", "me"), 1)
    assert decide(state, Wake(), 1).events == []
    _, state = catch_up(decide(state, Resume("reason", "me"), 2))
    assert all(each.action.open for each in state.steps)


@pytest.mark.usefixtures("tight")
def test_i42_what_is_too_much_by_itself_fails() -> None:
    fields = "+".join(f"steps.a{i}.output" for i in range(5))
    sources = [step(f"a{i}") for i in range(5)]
    reader = step("b", *(each.id for each in sources), template=f'"${{size({fields})}}"')
    _, state = start(graph(*sources, reader), LARGE)
    for i in range(5):
        _, state = decide(state, Settle(f"a{i}", False, 1, Succeeded(Json(json.dumps("x" * 900)))), 2)
    error = state.step("b").action.error
    assert error is not None
    assert (error.code, "more data at once" in error.message) == ("INPUT_INVALID", True)


@pytest.mark.usefixtures("tight")
def test_i42_the_output_of_a_saga_is_made_whatever_else_its_last_decision_has_made() -> None:
    """The last step is skipped by a condition that reads as much as a decision may."""
    last = replace(
        step("b", "a"), kind=Kind.RETRIABLE, compensation=None, when="size(steps.a.output) + size(input.x) < 5"
    )
    only = replace(step("a"), kind=Kind.PIVOT, compensation=None)
    _, state = start(graph(only, last, output='["${steps.a.output}"]'), started(json.dumps({"x": "x" * 2_000})))
    _, state = decide(state, Settle("a", False, 1, Succeeded(Json(json.dumps("y" * 900)))), 2)
    assert isinstance(state.ending, SagaCompleted)
    assert state.ending.output_error is None
    assert state.output == Json(json.dumps(["y" * 900]))


def test_i42_compensations_that_would_make_too_much_at_once_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, "AT_ONCE_BYTES_MAX", 3_000)
    steps = [step(f"s{i}", arguments='["${input}"]') for i in range(5)]
    _, state = start(graph(*steps, step("last", "s0")), started(json.dumps("x" * 800)))
    for i in range(5):
        _, state = decide(state, Settle(f"s{i}", False, 1, Succeeded(Json("1"))), 2)
    _, state = decide(state, Cancel("reason", "me"), 2)
    undone: list[str] = []
    _, state = decide(state, Settle("last", False, 1, Succeeded(Json("1"))), 2)
    events, state = decide(state, Settle("last", True, 1, Succeeded()), 2)
    while not state.final:
        open_steps = [n.step.id for n in state.graph.nodes if state.step(n.step.id).compensation.open]
        assert open_steps
        undone.append(open_steps[0])
        events, state = decide(state, Settle(open_steps[0], True, 1, Succeeded()), 3)
        assert len([event for event in events if isinstance(event, CompensationDispatched)]) <= 2
    assert state.status is SagaStatus.COMPENSATED
    assert all(state.step(f"s{i}").status is StepStatus.COMPENSATED for i in range(5))


def test_the_largest_payload_can_be_read_and_made_whatever_the_limit_of_a_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, "AT_ONCE_BYTES_MAX", 10)
    events, _ = start(graph(step("a", template='["${input.x}"]')), started(json.dumps({"x": "x" * (LIMIT - 9)})))
    assert isinstance(events[-1], StepDispatched)
    alone = replace(graph(step("a")), payload_bytes_max=LIMIT)
    assert start(alone, started("{}")).events
