"""Requests that cannot be meant: refused with the right status and details, and nothing is stored."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import grpc
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import Message

from amends import encode
from amends.v1 import definition_pb2, operator_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from tests.acceptance.harness import Refusal, Wire, World, definition, refusal_of, step

MIB = 1 << 20
INT64_MAX = (1 << 63) - 1

KNOWN = definition("known", "one")

Case = tuple[Message, str, str]
"""A request, the reason of its refusal, and the field that is blamed, if it is one."""

BAD = "ARGUMENT_INVALID"
BAD_DEFINITION = "DEFINITION_INVALID"
TOO_LARGE = "PAYLOAD_TOO_LARGE"
NOBODY = "SAGA_NOT_FOUND"
NO_DEFINITION = "DEFINITION_NOT_FOUND"
NO_PARTICIPANT = "PARTICIPANT_NOT_FOUND"
NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"
NOT_KEPT = "EVENTS_NOT_KEPT"
NOT_GIVEN_OUT = "TOKEN_INVALID"

CODES = {
    BAD: grpc.StatusCode.INVALID_ARGUMENT,
    BAD_DEFINITION: grpc.StatusCode.INVALID_ARGUMENT,
    TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NOBODY: grpc.StatusCode.NOT_FOUND,
    NO_DEFINITION: grpc.StatusCode.NOT_FOUND,
    NO_PARTICIPANT: grpc.StatusCode.NOT_FOUND,
    NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    NOT_KEPT: grpc.StatusCode.OUT_OF_RANGE,
    NOT_GIVEN_OUT: grpc.StatusCode.PERMISSION_DENIED,
}


async def refused(wire: Wire, request: Message) -> Refusal:
    """How the method that takes such a request refuses it."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    stub = wire.orchestrator if hasattr(wire.orchestrator, name) else wire.operator
    call = cast("Any", getattr(stub, name))(request)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)
    return refusal_of(error.value)


async def stored(world: World) -> tuple[list[str], list[str], list[str]]:
    """Everything that bad input could have left behind."""
    sagas = [saga.id async for saga in world.client.list()]
    definitions = [f"{each.name} {each.version}" async for each in world.client.definitions()]
    return sagas, definitions, [each.name async for each in world.client.participants()]


def start(**fields: Any) -> orchestrator_pb2.StartSagaRequest:
    """A start that is right but for the fields given."""
    fields.setdefault("definition", orchestrator_pb2.DefinitionRef(name="known"))
    return orchestrator_pb2.StartSagaRequest(**{"saga_id": "s", **fields})


def payload(text: str) -> payload_pb2.Payload:
    return payload_pb2.Payload(json=text)


def reference(**fields: Any) -> orchestrator_pb2.DefinitionRef:
    return orchestrator_pb2.DefinitionRef(**fields)


def lasting(seconds: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds)


def listing(**fields: Any) -> orchestrator_pb2.ListSagasRequest:
    return orchestrator_pb2.ListSagasRequest(**fields)


def listed_from(token: str, kind: type[Any] = orchestrator_pb2.ListSagasRequest) -> Message:
    return cast("Message", kind(page_token=token))


def filtered(**fields: Any) -> orchestrator_pb2.ListSagasRequest:
    return listing(filter=orchestrator_pb2.SagaFilter(**fields))


def get(**fields: Any) -> orchestrator_pb2.GetSagaRequest:
    return orchestrator_pb2.GetSagaRequest(**fields)


def participant(**fields: Any) -> operator_pb2.PutParticipantRequest:
    return operator_pb2.PutParticipantRequest(participant=operator_pb2.Participant(**fields))


def about_unknown(kind: type[Any], **fields: Any) -> Message:
    return cast("Message", kind(saga_id="nobody", **fields))


STARTS: dict[str, Case] = {
    "long id": (start(saga_id="x" * 129), BAD, "saga_id"),
    "space in id": (start(saga_id="a b"), BAD, "saga_id"),
    "slash in id": (start(saga_id="a/b"), BAD, "saga_id"),
    "line end in id": (start(saga_id="a\n"), BAD, "saga_id"),
    "letter outside ASCII in id": (start(saga_id="ä"), BAD, "saga_id"),
    "long namespace": (start(namespace="x" * 129), BAD, "namespace"),
    "slash in namespace": (start(namespace="a/b"), BAD, "namespace"),
    "no definition": (orchestrator_pb2.StartSagaRequest(saga_id="s"), BAD, "definition"),
    "empty definition": (start(definition=reference()), BAD, "definition.name"),
    "negative version": (
        start(definition=reference(name="known", version=-1)),
        BAD,
        "definition.version",
    ),
    "unknown definition": (start(definition=reference(name="other")), NO_DEFINITION, ""),
    "unknown version": (
        start(definition=reference(name="known", version=2)),
        NO_DEFINITION,
        "",
    ),
    "highest version": (
        start(definition=reference(name="known", version=INT64_MAX)),
        NO_DEFINITION,
        "",
    ),
    "unknown digest": (
        start(definition=reference(digest="sha256:0")),
        NO_DEFINITION,
        "",
    ),
    "oversized input": (start(input=encode("x" * MIB)), TOO_LARGE, "input"),
    "oversized opaque input": (
        start(input=payload_pb2.Payload(opaque=payload_pb2.OpaquePayload(data=bytes(MIB + 1)))),
        TOO_LARGE,
        "input",
    ),
    "input that is no JSON": (start(input=payload("{")), BAD, "input.json"),
    "empty JSON": (start(input=payload("")), BAD, "input.json"),
    "two JSONs": (start(input=payload("1 2")), BAD, "input.json"),
    "NaN": (start(input=payload("NaN")), BAD, "input.json"),
    "number out of range": (start(input=payload("1e999")), BAD, "input.json"),
    "half a character": (start(input=payload('"\\ud800"')), BAD, "input.json"),
    "JSON too deep": (start(input=payload("[" * 100 + "]" * 100)), BAD, "input.json"),
    "JSON far too deep": (start(input=payload("[" * MIB)), BAD, "input.json"),
    "message without type": (
        start(input=payload_pb2.Payload(message={})),
        BAD,
        "input.message.type_url",
    ),
    "too many labels": (start(labels={str(n): "" for n in range(17)}), BAD, "labels"),
    "long label": (start(labels={"k": "x" * 129}), BAD, 'labels["k"]'),
    "NUL in label": (start(labels={"k": "a\0b"}), BAD, "labels"),
    "label without name": (start(labels={"": "x"}), BAD, 'labels[""]'),
    "no deadline": (start(deadline=lasting(0)), BAD, "deadline"),
    "negative deadline": (start(deadline=lasting(-1)), BAD, "deadline"),
    "deadline in ages": (start(deadline=lasting(INT64_MAX)), BAD, "deadline"),
    "deadline after the calendar": (start(deadline=lasting(300_000_000_000)), BAD, "deadline"),
    "start time in ages": (start(start_time=timestamp_pb2.Timestamp(seconds=250_000_000_000)), BAD, "start_time"),
    "start time after the calendar": (start(start_time=timestamp_pb2.Timestamp(seconds=INT64_MAX)), BAD, "start_time"),
    "unknown participant": (
        orchestrator_pb2.StartSagaRequest(inline_definition=definition("x", step("one", participant="nobody"))),
        BAD_DEFINITION,
        "inline_definition.steps[0].participant",
    ),
}

READS: dict[str, Case] = {
    "empty id": (get(), BAD, "saga_id"),
    "long id": (get(saga_id="x" * 129), BAD, "saga_id"),
    "bad namespace": (get(saga_id="s", namespace="?"), BAD, "namespace"),
    "unknown saga": (get(saga_id="nobody"), NOBODY, ""),
    "unknown saga, waited for": (get(saga_id="nobody", wait=True), NOBODY, ""),
    "saga of another namespace": (get(saga_id="there", namespace="other"), NOBODY, ""),
    "watching nobody": (about_unknown(orchestrator_pb2.WatchSagaRequest), NOBODY, ""),
    "watching from below": (
        orchestrator_pb2.WatchSagaRequest(saga_id="there", after_sequence=-1),
        BAD,
        "after_sequence",
    ),
    "watching from the future": (
        orchestrator_pb2.WatchSagaRequest(saga_id="there", after_sequence=INT64_MAX),
        NOT_KEPT,
        "",
    ),
    "negative page size": (listing(page_size=-1), BAD, "page_size"),
    "page token that is none": (listed_from("?"), BAD, "page_token"),
    "page token that is base64": (listed_from("AAAA"), BAD, "page_token"),
    "page token that is JSON": (
        listed_from(base64.urlsafe_b64encode(b'["x", 1, "s"]').decode()),
        BAD,
        "page_token",
    ),
    "page token with letters": (listed_from("ä" * 10), BAD, "page_token"),
    "page token without end": (listed_from("A" * MIB), BAD, "page_token"),
    "deep page token": (
        listed_from(base64.urlsafe_b64encode(b"[" * 100_000).decode()),
        BAD,
        "page_token",
    ),
    "status out of range": (filtered(statuses=[99]), BAD, "filter.statuses[0]"),
    "version without name": (filtered(definition_version=1), BAD, "filter.definition"),
    "too many labels": (filtered(labels={str(n): "" for n in range(17)}), BAD, "filter.labels"),
    "negative age": (
        filtered(running_longer_than=lasting(-1)),
        BAD,
        "filter.running_longer_than",
    ),
    "age of ages": (
        filtered(running_longer_than=lasting(INT64_MAX)),
        BAD,
        "filter.running_longer_than",
    ),
    "after the end of time": (
        filtered(created_after=timestamp_pb2.Timestamp(seconds=INT64_MAX)),
        BAD,
        "filter.created_after",
    ),
    "before the beginning": (
        filtered(created_before=timestamp_pb2.Timestamp(seconds=-INT64_MAX)),
        BAD,
        "filter.created_before",
    ),
    "definition without name": (
        orchestrator_pb2.GetDefinitionRequest(),
        BAD,
        "definition.name",
    ),
    "unknown definition": (
        orchestrator_pb2.GetDefinitionRequest(definition=reference(name="other")),
        NO_DEFINITION,
        "",
    ),
    "bad token of definitions": (
        listed_from("x", orchestrator_pb2.ListDefinitionsRequest),
        BAD,
        "page_token",
    ),
    "bad token of participants": (
        listed_from("x", operator_pb2.ListParticipantsRequest),
        BAD,
        "page_token",
    ),
}

WRITES: dict[str, Case] = {
    "no definition": (
        orchestrator_pb2.RegisterDefinitionRequest(),
        BAD_DEFINITION,
        "definition.name",
    ),
    "bad namespace": (
        orchestrator_pb2.RegisterDefinitionRequest(namespace="?", definition=KNOWN),
        BAD,
        "namespace",
    ),
    "enum out of range": (
        orchestrator_pb2.RegisterDefinitionRequest(
            definition=definition_pb2.Definition(name="x", on_compensation_failure=cast("Any", 9))
        ),
        BAD_DEFINITION,
        "definition.on_compensation_failure",
    ),
    "deletion of all versions": (
        orchestrator_pb2.DeleteDefinitionRequest(definition=reference(name="known")),
        BAD,
        "definition.version",
    ),
    "cancel of nobody": (about_unknown(orchestrator_pb2.CancelSagaRequest), NOBODY, ""),
    "cancel with a book": (
        orchestrator_pb2.CancelSagaRequest(saga_id="there", reason="x" * 1_001),
        BAD,
        "reason",
    ),
    "cancel without id": (orchestrator_pb2.CancelSagaRequest(), BAD, "saga_id"),
    "retry of nobody": (about_unknown(operator_pb2.RetrySagaRequest, reason="r"), NOBODY, ""),
    "retry without reason": (operator_pb2.RetrySagaRequest(saga_id="there"), BAD, "reason"),
    "fail of nobody": (about_unknown(operator_pb2.FailSagaRequest, reason="r"), NOBODY, ""),
    "pause of nobody": (about_unknown(operator_pb2.PauseSagaRequest, reason="r"), NOBODY, ""),
    "resume of nobody": (about_unknown(operator_pb2.ResumeSagaRequest, reason="r"), NOBODY, ""),
    "resolution of nobody": (
        about_unknown(operator_pb2.ResolveStepRequest, reason="r", step="one", resolution=1),
        NOBODY,
        "",
    ),
    "no resolution": (
        operator_pb2.ResolveStepRequest(saga_id="there", step="one", reason="r"),
        BAD,
        "resolution",
    ),
    "oversized resolution": (
        operator_pb2.ResolveStepRequest(
            saga_id="there",
            step="one",
            reason="r",
            resolution=saga_pb2.STEP_RESOLUTION_SUCCEEDED,
            output=encode("x" * MIB),
        ),
        TOO_LARGE,
        "output",
    ),
    "participant without name": (
        participant(address="127.0.0.1:1"),
        BAD,
        "participant.name",
    ),
    "participant without address": (participant(name="p"), BAD, "participant.address"),
    "participant without port": (
        participant(name="p", address="127.0.0.1"),
        BAD,
        "participant.address",
    ),
    "participant elsewhere": (
        participant(name="p", address="192.0.2.1:80"),
        NOT_ALLOWED,
        "",
    ),
    "negative concurrency": (
        participant(name="p", address="127.0.0.1:1", concurrency_max=-1),
        BAD,
        "participant.concurrency_max",
    ),
    "removal of nobody": (
        operator_pb2.DeleteParticipantRequest(name="nobody"),
        NO_PARTICIPANT,
        "",
    ),
    "completion": (
        orchestrator_pb2.CompleteStepRequest(saga_id="there", step="one"),
        NOT_GIVEN_OUT,
        "",
    ),
    "completion of nothing": (
        orchestrator_pb2.CompleteStepRequest(saga_id="nobody", step="one"),
        NOBODY,
        "",
    ),
}

ALL = {
    f"{group}: {what}": case
    for group, cases in (("start", STARTS), ("read", READS), ("write", WRITES))
    for what, case in cases.items()
}


@pytest.mark.parametrize("what", ALL)
async def test_what_cannot_be_meant_is_refused_and_leaves_nothing(world: World, what: str) -> None:
    request, reason, field = ALL[what]
    before_it = (await world.run(KNOWN, id="there")).message
    before = await stored(world)
    refusal = await refused(world.wire, request)
    assert (refusal.code, refusal.reason) == (CODES[reason], reason), refusal
    if field:
        assert field in refusal.violations, refusal
    assert await stored(world) == before
    assert (await world.client.get("there")).message == before_it
    assert world.ledger.names() == ["one"]


async def test_a_page_token_of_another_question_is_refused(world: World) -> None:
    for number in range(3):
        await world.run(KNOWN, id=f"s{number}")
    first = await world.wire.orchestrator.ListSagas(listing(page_size=1))
    assert first.next_page_token
    other = listing(page_size=1, page_token=first.next_page_token, filter={"definition": "known"})
    assert (await refused(world.wire, other)).violations.keys() == {"page_token"}
    second = await world.wire.orchestrator.ListSagas(listing(page_size=2, page_token=first.next_page_token))
    assert [saga.saga_id for page in (first, second) for saga in page.sagas] == ["s2", "s1", "s0"]
    assert not second.next_page_token


@pytest.mark.parametrize(
    "place", [[10**30, "s"], [-(10**30), "s"], ["1", "s"], [True, "s"], [1], [1, "s", 2], [1, None], [1, "\ud800"]]
)
async def test_a_forged_page_token_is_refused(world: World, place: list[object]) -> None:
    for number in range(2):
        await world.run(KNOWN, id=f"s{number}")
    page = await world.wire.orchestrator.ListSagas(listing(page_size=1))
    question, *_ = json.loads(base64.urlsafe_b64decode(page.next_page_token))
    forged = base64.urlsafe_b64encode(json.dumps([question, *place]).encode()).decode()
    refusal = await refused(world.wire, listing(page_size=1, page_token=forged))
    assert (refusal.reason, refusal.violations.keys()) == (BAD, {"page_token"})


async def test_an_input_of_just_the_limit_is_taken(world: World) -> None:
    await world.run(KNOWN, "x" * (MIB - 2))
    [record] = world.ledger.calls()
    assert len(record.execute_request.input.json) == MIB


async def test_an_input_above_all_limits_is_refused_on_its_way(world: World) -> None:
    await world.client.register(KNOWN)
    refusal = await refused(world.wire, start(input=encode("x" * 6 * MIB)))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await stored(world) == ([], ["known 1"], ["worker"])


async def test_the_longest_id_is_taken(world: World) -> None:
    longest = "~" * 128
    assert (await world.run(KNOWN, id=longest)).id == longest
    assert world.ledger.names(longest) == ["one"]


async def test_a_start_without_an_id_gets_one(world: World) -> None:
    await world.client.register(KNOWN)
    ids = {(await world.wire.orchestrator.StartSaga(start(saga_id=""))).saga.saga_id for _ in range(3)}
    assert len(ids) == 3
    assert all(ids)
