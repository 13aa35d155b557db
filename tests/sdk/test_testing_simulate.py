"""Users' definitions in simulated worlds: what is reported, what a broken promise looks like, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from amends import PIVOT, Participant, Saga
from amends.testing import simulate
from amends.testing.simulation.participants import Participants
from amends.testing.simulation.samples import sample
from amends.v1 import participant_pb2, saga_pb2
from tests.cli.programs import amends

FAULTS_LEFT_MAX = 6
"""Of some dozens in a world: those without which no saga turns back."""


@dataclass
class Trip:
    to: str
    price: int


@dataclass
class Seat:
    number: int


airline = Participant("airline")
reserve = airline.declare("reserve", Trip, Seat, compensation=True)
ship = airline.declare("ship", Seat, str)


def booking() -> Saga[Trip, object]:
    saga = Saga("booking", input=Trip)
    seat = saga.step(reserve)
    saga.step(ship, Seat(number=seat.output.number), kind=PIVOT, delay=3600)
    return saga


def test_a_saga_is_run_in_many_worlds_and_the_same_seed_is_the_same_world() -> None:
    found = simulate(booking(), Trip("Rome", 30), outputs={"reserve": Seat(7)}, seeds=40)
    assert found.ok, found
    assert found.seen["ended COMPLETED"] > 0
    assert found.seen["ended COMPENSATED"] > 0
    assert found.seen["business error"]
    assert "40 seeds, and all promises were kept" in str(found)
    assert simulate(booking(), Trip("Rome", 30), outputs={"reserve": Seat(7)}, seeds=40) == found


def test_a_broken_promise_is_told_as_a_short_story(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: Participants, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply:
        return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS)  # and nothing is undone

    monkeypatch.setattr(Participants, "compensate", forget)
    found = simulate(booking(), Trip("Rome", 30), outputs={"reserve": Seat(7)})
    assert not found.ok
    assert f"seed {found.failed}: I1: " in found.story
    assert "COMPENSATED, and ['reserve'] left an effect" in found.story
    [left] = re.findall(r"(\d+) faults are left", found.story)
    assert int(left) <= FAULTS_LEFT_MAX


def test_a_saga_that_never_completes_is_said_to_need_more() -> None:
    with pytest.raises(ValueError, match=r"nothing going wrong a saga of `booking` is COMPENSATED.*outputs"):
        simulate(booking(), Trip("Rome", 30), outputs={"reserve": "no seat"})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"reserve: The output .*number"):
        simulate(booking(), Trip("Rome", 30), outputs={"reserve": {}})
    with pytest.raises(ValueError, match=r"`outputs` names resrve, but the steps are reserve, ship"):
        simulate(booking(), Trip("Rome", 30), outputs={"resrve": Seat(7)})
    with pytest.raises(ValueError, match=r"booking` is not started.*INVALID_ARGUMENT.*price"):
        simulate(booking(), {"to": "Rome", "price": "much"})
    with pytest.raises(ValueError, match="no saga to simulate"):
        simulate([])


def test_a_saga_that_waits_long_by_its_definition_comes_to_its_end() -> None:
    saga = Saga("slow", input=Trip)
    for number in range(20):
        saga.step(reserve, saga.input, id=f"leg_{number}", delay=3600)
    found = simulate(saga, Trip("Rome", 30), seeds=3)
    assert found.ok, found
    assert found.seen["ended COMPLETED"]


def test_samples_meet_their_schemas() -> None:
    node = {"type": "object", "properties": {"v": {"enum": [3]}, "next": {"$ref": "#/$defs/n"}}}
    schema = {"$ref": "#/$defs/n", "$defs": {"n": node}}
    made = sample(schema, schema)
    assert isinstance(made, dict)
    assert (made["v"], made["next"]["v"]) == (3, 3)
    assert sample({"anyOf": [{"type": "array"}, {"type": "null"}]}, {}) == []
    assert sample({"type": ["string", "null"], "minLength": 3}, {}) == "xxx"
    assert sample(True, {}) == {}


def test_the_command_reports_tells_and_refuses(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    one = {"name": "one", "steps": [{"id": "a", "participant": "p", "action": "a", "compensation": {}}]}
    file.write_text(json.dumps(one), encoding="utf-8")
    run = amends("simulate", str(file), "--seeds", "10", "--input", "{}")
    assert (run.code, "10 seeds, and all promises were kept" in run.out) == (0, True), run
    told = amends("simulate", str(file), "--seed", "3")
    assert (told.code, "server-1" in told.out) == (0, True), told
    assert amends("simulate", str(file), "--outputs", "[]").code == 2
    for seeds in ("--seed", "--seeds"):
        mistaken = amends("simulate", str(file), seeds, "3", "--outputs", '{"b": 1}')
        assert (mistaken.code, "--outputs names b, but the steps are a" in mistaken.err) == (2, True), mistaken
    file.write_text(json.dumps(one | {"steps": []}), encoding="utf-8")
    refused = amends("simulate", str(file))
    assert (refused.code, "at least one step" in refused.err) == (2, True), refused
