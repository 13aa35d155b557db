"""What one decision may read and make: sizes, sharing, and what waits when it is too much at once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from amends_server.engine import jsonvalue, making
from amends_server.engine.commands import Cancel, Settle, Succeeded
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import Compensation, Definition, Step
from amends_server.engine.events import CompensationDispatched, SagaStarted, StepDispatched, StepRefused
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import Json
from amends_server.engine.state import SagaStatus, StepStatus

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


def test_i42_steps_that_would_make_too_much_at_once_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "AT_ONCE_BYTES_MAX", 3_000)
    steps = [step(f"s{i}", template='["${input}"]') for i in range(9)]
    events, state = start(graph(*steps), started(json.dumps("x" * 800)))
    assert isinstance(events[1], StepRefused)
    assert "at once" in events[1].error.message
    assert state.status is SagaStatus.COMPENSATED


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
