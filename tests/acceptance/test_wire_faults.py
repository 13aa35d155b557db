"""Replies that say nothing clear: what is not plainly a success is unknown, and never a success."""

from __future__ import annotations

import grpc
import pytest

from amends import EventKind, SagaStatus, StepStatus
from amends.v1 import participant_pb2, payload_pb2, saga_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    Answer,
    World,
    definition,
    die,
    in_progress,
    raw,
    refuse,
    status,
    step,
    succeed,
)

MIB = 1 << 20
SUCCESS = saga_pb2.REPLY_STATUS_SUCCESS


def reply(number: int, output: payload_pb2.Payload | None = None) -> Answer:
    """A response with any number as its status."""
    said = saga_pb2.Reply(output=output)
    said.status = number  # type: ignore[assignment]  # proto3 enums are open: a newer peer may say more
    return raw(participant_pb2.ExecuteResponse(reply=said).SerializeToString())


FAULTS: dict[str, tuple[Answer, str]] = {
    "no protobuf": (raw(b"\xff\xff\xff\xff"), "REPLY_UNREADABLE"),
    "cut off": (raw(succeed("x" * 100).reply.SerializeToString()[:-50]), "REPLY_UNREADABLE"),  # type: ignore[union-attr]
    "no reply in it": (raw(b""), "REPLY_UNREADABLE"),
    "no status": (reply(0), "REPLY_UNREADABLE"),
    "status out of range": (reply(999), "REPLY_UNREADABLE"),
    "status that is nearly success": (reply(201), "REPLY_UNREADABLE"),
    "negative status": (reply(-1), "REPLY_UNREADABLE"),
    "output that is no JSON": (reply(SUCCESS, payload_pb2.Payload(json="{")), "REPLY_UNREADABLE"),
    "output without type": (reply(SUCCESS, payload_pb2.Payload(message={})), "REPLY_UNREADABLE"),
    "output that nests too deep": (reply(SUCCESS, payload_pb2.Payload(json="[" * 99 + "]" * 99)), "REPLY_UNREADABLE"),
    "broken down": (die(effect=True), "UNAVAILABLE"),
}
UNDO_FAULTS = FAULTS | {"in progress": (in_progress(), "IN_PROGRESS")}


@pytest.mark.parametrize("what", FAULTS)
async def test_an_unclear_answer_is_unknown_and_never_a_success(world: World, what: str) -> None:
    fault, code = FAULTS[what]
    world.worker.on("one", fault)
    handle = await world.start(definition("unclear", step("one", attempts=2, undo_attempts=-1), "two"))
    event = await world.until("s", "step_given_up", "one")
    if what == "broken down":
        await world.worker.close()
        await world.worker.start()
    saga = await world.settled(handle)
    assert event.error is not None
    assert (event.error.code, event.error.participant) == (code, "worker")
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.step("one").attempts == 2
    assert not saga.step("one").output
    assert "two" not in world.ledger.names()
    assert world.ledger.effects() == []
    assert EventKind.STEP_SUCCEEDED not in [each.kind for each in await world.journal()]


@OVER_BOTH_LINKS
@pytest.mark.parametrize("what", [what for what in FAULTS if what != "broken down"])
async def test_an_unclear_answer_is_asked_for_again_with_the_same_key(world: World, what: str) -> None:
    fault, _ = FAULTS[what]
    world.worker.on("one", fault, succeed("clear"))
    saga = await world.run(definition("clearer", "one"))
    assert saga.status is SagaStatus.COMPLETED
    assert saga.step("one").output.read(str) == "clear"
    assert len(world.ledger.keys("s", "one")) == 1
    assert world.ledger.effects() == ["one"]


@pytest.mark.parametrize("what", [what for what in UNDO_FAULTS if what != "broken down"])
async def test_an_unclear_answer_to_a_compensation_does_not_count_as_undone(world: World, what: str) -> None:
    fault, code = UNDO_FAULTS[what]
    world.worker.on("two", refuse())
    world.worker.on("undo one", fault)
    saga = await world.run(definition("unclear_undo", step("one", undo_attempts=2), "two"))
    assert saga.status is SagaStatus.STUCK
    one = saga.step("one")
    assert (one.status, one.compensation_attempts) == (StepStatus.COMPENSATION_FAILED, 2)
    assert one.compensation_error is not None
    assert one.compensation_error.code == code
    assert world.ledger.names() == ["one", "two", "undo one", "undo one"]


async def test_an_output_above_the_limit_is_undone_and_not_asked_for_again(world: World) -> None:
    world.worker.on("two", succeed("x" * MIB))
    saga = await world.run(definition("large", "one", step("two", attempts=5)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    assert world.ledger.effects() == []
    error = saga.step("two").error
    assert error is not None
    assert error.code == "OUTPUT_TOO_LARGE"
    assert not saga.step("two").output


async def test_a_message_above_the_limit_is_undone_and_not_asked_for_again(world: World) -> None:
    world.worker.on("two", raw(b"\x0a" * 6 * MIB))
    saga = await world.run(definition("larger", "one", step("two", attempts=5)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
    error = saga.step("two").error
    assert error is not None
    assert error.code == "RESOURCE_EXHAUSTED"


@OVER_BOTH_LINKS
async def test_payloads_of_just_the_limit_go_all_the_way_there_and_back(world: World) -> None:
    text = "x" * (MIB - 2)  # its quotes are part of the payload
    world.worker.on("one", succeed(text))
    world.worker.on("two", succeed(text))
    world.worker.on("three", refuse("NO", "m" * 500, data=text))
    two = step("two", input="${steps.one.output}", arguments="${steps.one.output}")
    saga = await world.run(definition("just", "one", two, "three"), text)
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "three", "undo two", "undo one"]
    [undo] = world.ledger.calls("s", "undo two")
    assert len(undo.request) > 5 * MIB, "it carries input, output, arguments, the saga's input and the error's data"


async def test_texts_without_end_are_cut(world: World) -> None:
    said = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR)
    said.error.code, said.error.message = "C" * 100_000, "m" * 100_000
    for number in range(1_000):
        said.related_services.add(name=f"{number}" * 1_000, reference="r" * 1_000)
    world.worker.on("one", raw(participant_pb2.ExecuteResponse(reply=said).SerializeToString(), effect=False))
    saga = await world.run(definition("endless", "one"))
    assert saga.status is SagaStatus.COMPENSATED
    one = saga.step("one")
    assert one.error is not None
    assert len(one.error.code) <= 128
    assert len(one.error.message) <= 500
    assert 0 < len(one.message.related_services) <= 100
    assert saga.message.ByteSize() < 200_000


@OVER_BOTH_LINKS
async def test_an_error_with_unfit_data_is_a_refusal_all_the_same(world: World) -> None:
    error = payload_pb2.Error(code="NO", message="m" * 10_000, data=payload_pb2.Payload(json="{"))
    said = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=error)
    world.worker.on("two", raw(participant_pb2.ExecuteResponse(reply=said).SerializeToString(), effect=False))
    saga = await world.run(definition("unfit", "one", "two"))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo one"]
    kept = saga.step("two").error
    assert kept is not None
    assert (kept.code, bool(kept.data)) == ("NO", False)
    assert len(kept.message) <= 500


async def test_a_refusal_without_an_error_has_a_code_of_ours(world: World) -> None:
    said = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR)
    world.worker.on("one", raw(participant_pb2.ExecuteResponse(reply=said).SerializeToString(), effect=False))
    saga = await world.run(definition("wordless", "one"))
    assert saga.status is SagaStatus.COMPENSATED
    error = saga.step("one").error
    assert error is not None
    assert (error.code, error.participant) == ("REFUSED", "worker")


async def test_an_action_that_the_participant_does_not_have_is_not_tried_again(world: World) -> None:
    world.worker.on("two", status(grpc.StatusCode.UNIMPLEMENTED, "no such action"))
    saga = await world.run(definition("missing", "one", step("two", attempts=5)))
    assert saga.status is SagaStatus.COMPENSATED
    assert world.ledger.names() == ["one", "two", "undo two", "undo one"]
