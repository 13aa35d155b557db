"""The judge of simulated worlds goes by what participants hold, not by what they say: those that lie are found out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amends.testing.simulation.participants import Participants
from amends.v1 import participant_pb2, payload_pb2, saga_pb2
from tests.simulation.crash_points import SCENARIOS, run

Execute = Callable[[Participants, participant_pb2.ExecuteRequest], saga_pb2.Reply]
EXECUTE, COMPENSATE = Participants.execute, Participants.compensate
REFUSED = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=payload_pb2.Error(code="NO"), stored=True)


def refuses_what_it_has_done(world: Participants, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
    done = EXECUTE(world, request)
    return REFUSED if request.call.step == "b" else done


def does_nothing(world: Participants, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
    output = payload_pb2.Payload(json="{}")
    return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=output)


@pytest.mark.parametrize(
    ("execute", "scenario", "found"),
    [
        (refuses_what_it_has_done, "two steps", "I1: saga-1 is COMPENSATED, and ['b'] left an effect"),
        (refuses_what_it_has_done, "pivot without answer", "I1: saga-1 is COMPENSATED, and ['b'] left an effect"),
        (does_nothing, "two steps", "I1: saga-1 is COMPLETED, and ['a', 'b'] left no effect"),
    ],
)
def test_i1_the_judge_goes_by_the_effects(
    execute: Execute, scenario: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = next(each for each in SCENARIOS if each.name == scenario)
    assert not run(played).violation
    monkeypatch.setattr(Participants, "execute", execute)
    assert run(played).violation == found


def test_i1_the_judge_sees_what_was_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def undoes_nothing(world: Participants, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply:
        return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS)

    monkeypatch.setattr(Participants, "compensate", undoes_nothing)
    refused = next(each for each in SCENARIOS if each.name == "refused")
    assert run(refused).violation == "I1: saga-1 is COMPENSATED, and ['a'] left an effect"
