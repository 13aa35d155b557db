"""The participant kit, over a real grpc.aio channel."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, cast

import grpc
import msgspec
import pytest

from amends.errors import PayloadError, Refused
from amends.participant.call import Call
from amends.participant.participant import Participant
from amends.participant.serve import serving
from amends.payloads import decode, encode
from amends.v1 import participant_pb2, participant_pb2_grpc, payload_pb2, saga_pb2
from amends.views import Cause, CauseKind

WAIT_S = 30.0
Stub = participant_pb2_grpc.ParticipantServiceStub


@dataclass(frozen=True)
class Reserve:
    sku: str
    quantity: int = 1


@dataclass(frozen=True)
class Hold:
    id: str


@dataclass(frozen=True)
class Why:
    reason: str


@dataclass
class Seen:
    """What the handlers below were given and can wait for."""

    calls: list[Call] = field(default_factory=list[Call])
    undone: list[tuple[Reserve, Hold | None, Call]] = field(default_factory=list[tuple[Reserve, Hold | None, Call]])
    entered: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    threads: set[str] = field(default_factory=set[str])


@dataclass(frozen=True)
class Weight:
    """Has code that fails at what it did not expect."""

    grams: int

    def __post_init__(self) -> None:
        if self.grams == 0:
            raise KeyError("SECRET")


class HTTPTimeoutError(Exception):
    pass


class Unsendable:
    pass


inventory = Participant("inventory")
seen = Seen()


@inventory.action
async def reserve(request: Reserve, call: Call) -> Hold:
    """Take goods
    off the shelf.

    Not part of the description.
    """
    seen.calls.append(call)
    call.relate("carrier", "TR-1")
    return Hold(f"hold of {request.quantity} {request.sku}")


@reserve.compensation
async def release(request: Reserve, done: Hold | None, call: Call) -> None:
    seen.undone.append((request, done, call))


@inventory.action(name="count-all")
async def count(request: Reserve) -> int:
    return request.quantity


@inventory.action
async def weigh(weight: Weight) -> int:
    return weight.grams


@inventory.action
def plain(request: Reserve, call: Call) -> Hold:
    seen.threads.add(threading.current_thread().name)
    return Hold(call.key)


@plain.compensation
def plain_undo(request: Reserve, done: Hold | None) -> None:
    raise Refused("TOO_LATE", "it has left the house")


@inventory.action
def plain_alone(request: Reserve) -> None:
    seen.entered.set()
    assert seen.release.wait(WAIT_S)
    seen.left.set()


class OddError(BaseException):
    pass


class Reason(Enum):
    SOLD = "SOLD_OUT"


@inventory.action
async def fail(request: Reserve, call: Call) -> Hold:
    match request.sku:
        case "refused":
            raise Refused("OUT_OF_STOCK", "none left", data=Why("sold"), stored=True)
        case "refused-odd":
            raise Refused("OUT_OF_STOCK", data=Unsendable())
        case "cancelled":
            raise asyncio.CancelledError
        case "odd":
            raise OddError
        case "misfit":
            return Hold(cast("str", 7))
        case "refused-enum":
            raise Refused(cast("str", Reason.SOLD), cast("str", ValueError("half \ud800")))
        case "ours":
            raise PayloadError("a text of ours")
        case "unsendable":
            return Unsendable()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        case _:
            raise HTTPTimeoutError("password=SECRET")


@inventory.action
def plain_fail(request: Reserve) -> Hold:
    match request.sku:
        case "stop":
            raise StopIteration
        case "cancelled":
            raise asyncio.CancelledError
        case "exit":
            sys.exit("bye")
        case _:
            raise Refused("OUT_OF_STOCK")


@inventory.action
def plain_default(request: Reserve, call: Call | None = None, times: int = 1) -> str:
    return f"{call and call.key} {times}"


@inventory.action
def plain_own_default(request: Reserve, times: int = 1) -> int:
    return times


@plain_default.compensation
def plain_default_undo(request: Reserve, done: str | None = None, call: Call | None = None) -> None:
    assert call is not None
    raise Refused("UNDONE", call.key)


@inventory.action
async def hang(request: Reserve) -> None:
    seen.entered.set()
    try:
        await asyncio.Event().wait()
    finally:
        seen.cancelled.set()


@hang.compensation
async def hang_undo(request: Reserve, done: None, call: Call) -> None:
    arguments = call.arguments_as(Why)
    assert arguments.reason


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    seen.__init__()
    yield
    seen.release.set()


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with serving(inventory) as address, grpc.aio.insecure_channel(address) as channel:
        yield Stub(channel)


def call_of(key: str = "k-1") -> participant_pb2.Call:
    call = participant_pb2.Call(
        namespace="shop",
        saga_id="s-1",
        step="hold",
        key=key,
        attempt=2,
        epoch=7,
        definition="order",
        definition_version=3,
        labels={"team": "blue"},
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    call.expire_time.FromDatetime(dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC))
    return call


async def execute(stub: Stub, action: str, value: object = Reserve("tea"), key: str = "k-1") -> saga_pb2.Reply:
    request = participant_pb2.ExecuteRequest(call=call_of(key), action=action, input=encode(value))
    return (await stub.Execute(request, timeout=WAIT_S)).reply


async def compensate(stub: Stub, action: str, **parts: object) -> saga_pb2.Reply:
    payloads = {name: encode(part) for name, part in parts.items() if name != "cause"}
    payloads.setdefault("input", encode(Reserve("tea", 2)))
    request = participant_pb2.CompensateRequest(call=call_of("k-2"), action=action, execute_key="k-1", **payloads)
    return (await stub.Compensate(request, timeout=WAIT_S)).reply


async def wait(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def test_an_action_gets_its_typed_input_and_the_call(stub: Stub) -> None:
    reply = await execute(stub, "reserve", Reserve("tea", 3))
    assert reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    assert decode(reply.output, Hold) == Hold("hold of 3 tea")
    assert list(reply.related_services) == [payload_pb2.RelatedService(name="carrier", reference="TR-1")]
    [call] = seen.calls
    assert (call.namespace, call.saga_id, call.step) == ("shop", "s-1", "hold")
    assert (call.key, call.execute_key, call.attempt, call.epoch) == ("k-1", "k-1", 2, 7)
    assert (call.definition, call.version, dict(call.labels)) == ("order", 3, {"team": "blue"})
    assert call.deadline == dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)
    assert call.traceparent.startswith("00-111")
    assert call.cause is None


async def test_b14_a_compensation_gets_input_output_arguments_saga_input_and_cause(stub: Stub) -> None:
    request = participant_pb2.CompensateRequest(
        call=call_of("k-2"),
        action="reserve",
        execute_key="k-1",
        input=encode(Reserve("tea", 2)),
        output=encode(Hold("h")),
        arguments=encode(Why("late")),
        saga_input=encode({"order": 1}),
        cause=saga_pb2.Cause(cancel=saga_pb2.RequestCause(reason="changed my mind")),
    )
    reply = (await stub.Compensate(request, timeout=WAIT_S)).reply
    assert reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    [(value, done, call)] = seen.undone
    assert (value, done) == (Reserve("tea", 2), Hold("h"))
    assert (call.key, call.execute_key) == ("k-2", "k-1")
    assert call.arguments_as(Why) == Why("late")
    assert call.saga_input_as(dict[str, int]) == {"order": 1}
    assert call.cause == Cause(kind=CauseKind.CANCEL, reason="changed my mind")


async def test_an_action_that_is_not_known_to_have_succeeded_is_undone_without_output(stub: Stub) -> None:
    reply = await compensate(stub, "reserve")
    assert reply.status == saga_pb2.REPLY_STATUS_SUCCESS
    assert seen.undone[0][1] is None


async def test_the_call_may_be_left_out_and_the_name_chosen(stub: Stub) -> None:
    assert decode((await execute(stub, "count-all", Reserve("tea", 4))).output, int) == 4


async def test_plain_handlers_run_in_threads(stub: Stub) -> None:
    assert decode((await execute(stub, "plain")).output, Hold) == Hold("k-1")
    assert threading.main_thread().name not in seen.threads


async def test_a_plain_handler_runs_on_after_the_deadline_and_blocks_nobody(stub: Stub) -> None:
    request = participant_pb2.ExecuteRequest(call=call_of(), action="plain_alone", input=encode(Reserve("tea")))
    running = stub.Execute(request, timeout=1)
    await wait(seen.entered)
    assert (await execute(stub, "count-all")).status == saga_pb2.REPLY_STATUS_SUCCESS
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    seen.release.set()
    await wait(seen.left)


async def test_plain_handlers_are_bounded_and_the_rest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amends.participant.participant.PLAIN_HANDLERS_MAX", 2)
    narrow, running, both = Participant("narrow"), threading.Semaphore(2), threading.Barrier(3)

    @narrow.action(name="work")
    def work(request: int) -> bool:
        alone = running.acquire(blocking=False)
        both.wait(WAIT_S) if request < 2 else None
        running.release()
        return alone

    async with serving(narrow) as address, grpc.aio.insecure_channel(address) as channel:
        calls = [asyncio.create_task(execute(Stub(channel), "work", n)) for n in range(6)]
        await asyncio.to_thread(both.wait, WAIT_S)
        replies = await asyncio.gather(*calls)
    assert [decode(reply.output, bool) for reply in replies] == [True] * 6


async def test_a_call_that_its_client_gives_up_cancels_an_async_handler(stub: Stub) -> None:
    request = participant_pb2.ExecuteRequest(call=call_of(), action="hang", input=encode(Reserve("tea")))
    running = stub.Execute(request, timeout=WAIT_S)
    pending = asyncio.ensure_future(running)  # type: ignore[arg-type]
    await wait(seen.entered)
    running.cancel()
    await asyncio.wait_for(seen.cancelled.wait(), WAIT_S)
    with pytest.raises(asyncio.CancelledError):
        await pending


async def test_a_refusal_is_a_business_error_with_data(stub: Stub) -> None:
    reply = await execute(stub, "fail", Reserve("refused"))
    assert reply.status == saga_pb2.REPLY_STATUS_ERROR
    assert (reply.error.code, reply.error.message, reply.error.participant) == (
        "OUT_OF_STOCK",
        "none left",
        "inventory",
    )
    assert decode(reply.error.data, Why) == Why("sold")
    assert reply.stored
    assert not (await execute(stub, "plain_fail")).stored


async def test_a_refusal_holds_though_its_data_cannot_be_sent(stub: Stub) -> None:
    reply = await execute(stub, "fail", Reserve("refused-odd"))
    assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_ERROR, "OUT_OF_STOCK")


@pytest.mark.parametrize(
    ("action", "sku", "code"),
    [
        ("fail", "other", "HTTP_TIMEOUT_ERROR"),
        ("fail", "cancelled", "CANCELLED_ERROR"),
        ("fail", "unsendable", "PAYLOAD_ERROR"),
        ("plain_fail", "stop", "RUNTIME_ERROR"),
        ("plain_fail", "cancelled", "CANCELLED_ERROR"),
        ("fail", "odd", "ODD_ERROR"),
        ("fail", "misfit", "PAYLOAD_ERROR"),
        ("plain_fail", "exit", "SYSTEM_EXIT"),
    ],
)
async def test_any_other_exception_is_a_system_error(stub: Stub, action: str, sku: str, code: str) -> None:
    reply = await execute(stub, action, Reserve(sku))
    assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_SYSTEM_ERROR, code)
    assert reply.error.participant == "inventory"


async def test_only_our_own_texts_are_sent_and_the_log_has_the_rest(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "amends.participant"):
        reply = await execute(stub, "fail", Reserve("other"))
    assert "SECRET" not in str(reply)
    assert "HTTPTimeoutError" in reply.error.message
    assert "SECRET" in caplog.text
    assert (await execute(stub, "fail", Reserve("ours"))).error.message == "a text of ours"


async def test_input_that_does_not_fit_is_refused_with_its_path(stub: Stub) -> None:
    reply = await execute(stub, "reserve", {"sku": "tea", "quantity": "many"})
    assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_ERROR, "INVALID_INPUT")
    assert "$.quantity" in reply.error.message
    assert not seen.calls


async def test_code_of_a_type_that_fails_is_a_system_error_like_that_of_a_handler(stub: Stub) -> None:
    reply = await execute(stub, "weigh", {"grams": 0})
    assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_SYSTEM_ERROR, "KEY_ERROR")
    assert "SECRET" not in str(reply)


async def test_a_compensation_whose_input_does_not_fit_is_not_refused(stub: Stub) -> None:
    for parts in ({"input": {"sku": 1}}, {"output": {"id": 1}}):
        reply = await compensate(stub, "reserve", **parts)
        assert (reply.status, reply.error.code) == (saga_pb2.REPLY_STATUS_SYSTEM_ERROR, "INVALID_INPUT")
    assert not seen.undone


async def test_a_compensation_can_refuse_and_read_arguments(stub: Stub) -> None:
    assert (await compensate(stub, "plain")).status == saga_pb2.REPLY_STATUS_ERROR
    assert (await compensate(stub, "hang", arguments=Why("x"))).status == saga_pb2.REPLY_STATUS_SUCCESS
    assert (await compensate(stub, "hang", arguments={})).status == saga_pb2.REPLY_STATUS_SYSTEM_ERROR


async def test_what_is_not_there_is_unimplemented_and_named(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await execute(stub, "nothing")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "'nothing'" in (unknown.value.details() or "")
    assert "count-all, fail" in (unknown.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as compensation:
        await compensate(stub, "count-all")
    assert compensation.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "no compensation" in (compensation.value.details() or "")


async def test_a_call_without_key_is_refused(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await execute(stub, "reserve", key="")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not seen.calls


async def test_actions_are_described_with_schemas(stub: Stub) -> None:
    described = await stub.Describe(participant_pb2.DescribeRequest(), timeout=WAIT_S)
    assert described.participant == "inventory"
    actions = {action.name: action for action in described.actions}
    assert actions["reserve"].has_compensation
    assert not actions["count-all"].has_compensation
    assert actions["reserve"].description == "Take goods off the shelf."
    assert "quantity" in json.loads(actions["reserve"].input_schema)["$defs"]["Reserve"]["properties"]
    assert json.loads(actions["count-all"].output_schema) == {"type": "integer"}


def test_actions_are_typed_values() -> None:
    assert (reserve.participant, reserve.name) == ("inventory", "reserve")
    assert (reserve.input_type, reserve.output_type, reserve.has_compensation) == (Reserve, Hold, True)
    ship = Participant("shipping").declare("ship", Reserve, Hold, compensation=True)
    assert (ship.participant, ship.name, ship.output_type, ship.has_compensation) == ("shipping", "ship", Hold, True)
    tell = Participant("shipping").declare("tell", Reserve)
    assert (tell.output_type, tell.has_compensation) == (type(None), False)


def test_wrong_declarations_are_refused_at_once() -> None:
    other = Participant("other")
    with pytest.raises(ValueError, match="must be a letter"):
        Participant("1st")
    with pytest.raises(ValueError, match="must be a letter"):
        other.declare("x" * 129, Reserve)
    with pytest.raises(ValueError, match="already"):
        reserve.compensation(release)
    other.action(count_again)
    with pytest.raises(ValueError, match="already"):
        other.action(count_again)
    with pytest.raises(TypeError, match="types"):
        other.action(untyped)
    with pytest.raises(TypeError, match="takes 3 arguments"):
        other.action(name="three")(release)  # type: ignore[arg-type]  # pyright: ignore


async def count_again(request: Reserve) -> int:
    return request.quantity


def untyped(request):  # type: ignore[no-untyped-def]
    return request


def test_types_inside_a_function_are_explained() -> None:
    @dataclass
    class Local:
        x: int

    async def handler(request: Local) -> None: ...

    with pytest.raises(TypeError, match="names of its module"):
        Participant("other").action(handler)


def test_what_is_said_of_a_type_is_kept() -> None:
    small = annotated(some)
    assert json.loads(small.input_schema) == {"type": "integer", "minimum": 1}
    assert json.loads(small.output_schema) == {"type": "string", "maxLength": 3}
    assert json.loads(annotated(odd).input_schema) == {"type": "integer"}


async def test_an_input_that_is_not_as_it_is_said_to_be_does_not_reach_the_handler() -> None:
    counted = Participant("counted")
    action = counted.action(some)
    reply = await action.execute(participant_pb2.ExecuteRequest(input=payload_pb2.Payload(json="0")))
    assert (reply.status, ">= 1" in reply.error.message) == (saga_pb2.REPLY_STATUS_ERROR, True)


def annotated(function: Callable[..., object]) -> participant_pb2.ActionDescription:
    other = Participant("annotated")
    other.action(function)
    return other.describe().actions[0]


def some(count: Annotated[int, msgspec.Meta(ge=1)]) -> Annotated[str, msgspec.Meta(max_length=3)]:
    return "x" * count


def odd(count: Annotated[int, {"not": "hashable"}]) -> str:
    return "x" * count


async def test_a_refusal_holds_whatever_its_texts_are_made_of(stub: Stub) -> None:
    reply = await execute(stub, "fail", Reserve("refused-enum"))
    assert reply.status == saga_pb2.REPLY_STATUS_ERROR
    assert (reply.error.code, reply.error.message) == ("SOLD_OUT", "half \\ud800")


async def test_a_call_with_a_default_is_given_and_other_defaults_are_left(stub: Stub) -> None:
    assert (await execute(stub, "plain_default")).output.json == '"k-1 1"'
    assert (await execute(stub, "plain_own_default")).output.json == "1"
    assert (await compensate(stub, "plain_default")).error.code == "UNDONE"


async def test_calls_of_any_size_are_taken(stub: Stub) -> None:
    assert (await execute(stub, "count-all", Reserve("x" * 20_000_000))).status == saga_pb2.REPLY_STATUS_SUCCESS


async def test_plain_compensations_do_not_wait_for_actions_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amends.participant.participant.PLAIN_HANDLERS_MAX", 1)
    narrow, entered, release = Participant("narrow"), threading.Event(), threading.Event()

    def work(request: Reserve) -> None:
        entered.set()
        assert release.wait(WAIT_S)

    served = narrow.action(name="work")(work)
    served.compensation(lambda request, done: None)
    async with serving(narrow) as address, grpc.aio.insecure_channel(address) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        hanging = asyncio.ensure_future(execute(stub, "work"))
        await wait(entered)
        async with asyncio.timeout(WAIT_S / 2):
            assert (await compensate(stub, "work")).status == saga_pb2.REPLY_STATUS_SUCCESS
        release.set()
        await hanging
