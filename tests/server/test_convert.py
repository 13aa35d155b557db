"""Payloads, definitions and sagas between the wire and the engine."""

from __future__ import annotations

import json

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from amends.v1 import definition_pb2, payload_pb2, saga_pb2
from amends_server.convert.definition import (
    definition_body,
    definition_from_body,
    definition_to_wire,
    diagnose,
    problems_to_wire,
    read_definition,
    stored_definition_to_wire,
)
from amends_server.convert.payload import check_json, payload_from_wire, read_payload, set_payload
from amends_server.convert.saga import saga_to_wire, stored_saga_to_wire
from amends_server.engine import events as e
from amends_server.engine.checks.problem import InvalidDefinition, Severity
from amends_server.engine.commands import Refused, Settle, Succeeded, Unknown
from amends_server.engine.data.jsonvalue import parse_json
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import Definition, Kind, OnCompensationFailure, digest
from amends_server.engine.graph import build_graph
from amends_server.engine.payload import Error, Json, Message, Opaque, Payload, RelatedService
from amends_server.engine.policy import TIMEOUT_US, Backoff, Retry
from amends_server.engine.state import SagaStatus, State
from amends_server.errors import BadField, PayloadTooLarge
from amends_server.store.protocol import Birth, Head, SagaKey, StoredDefinition, StoredSaga
from tests.server.strategies import definitions, json_values, payloads

MIB = 1 << 20


# --- payloads


@given(payloads)
def test_payloads_come_back_as_they_were(payload: Payload) -> None:
    message = payload_pb2.Payload()
    set_payload(message, payload)
    assert payload_from_wire(payload_pb2.Payload.FromString(message.SerializeToString())) == payload


def test_no_kind_is_no_payload() -> None:
    assert read_payload(payload_pb2.Payload(), "input", MIB) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", '{"a":1,}', "[1 2]", "nul", "NaN", "[Infinity]", "01", '"\t"', '"\\x"', "1 1", "\ufeff1"),
        *('"\\ud800"', '{"\\udc00 and more":1}', "1e999", "9" * 5_000, "[" * 65 + "]" * 65, "[" * 100_000),
    ],
)
def test_json_that_the_engine_could_not_take_is_refused_at_the_door(text: str) -> None:
    with pytest.raises(BadField) as caught:
        read_payload(payload_pb2.Payload(json=text), "start.input", MIB)
    assert caught.value.violations[0].field == "start.input.json"


@pytest.mark.parametrize(
    "text", ["null", "0", '"${x}"', "[" * 64 + "]" * 64, '"\\ud83d\\ude00"', json.dumps([{}] * 200)]
)
def test_sound_json_passes_unchanged(text: str) -> None:
    assert read_payload(payload_pb2.Payload(json=text), "input", MIB) == Json(text)


@given(json_values.map(json.dumps) | st.text(st.sampled_from('{}[]":,01e-+."\\u d8nul'), max_size=12))
def test_what_passes_the_door_the_engine_can_read(text: str) -> None:
    try:
        check_json(text, "input")
    except BadField:
        return
    json.dumps(parse_json(text), ensure_ascii=False).encode()


def test_payloads_above_the_limit_are_refused() -> None:
    assert read_payload(payload_pb2.Payload(json='"ab"'), "input", 4) == Json('"ab"')
    with pytest.raises(PayloadTooLarge, match="input has 5 bytes, and 4 are the most"):
        read_payload(payload_pb2.Payload(json='"é1"'), "input", 4)
    with pytest.raises(PayloadTooLarge, match="input has 6 bytes"):
        read_payload(payload_pb2.Payload(opaque=payload_pb2.OpaquePayload(data=b"1", content_type="é/x!")), "input", 4)
    with pytest.raises(PayloadTooLarge, match="input has 5 bytes"):
        read_payload(payload_pb2.Payload(message=Any(type_url="a/b", value=b"12")), "input", 4)


def test_a_message_must_name_its_type() -> None:
    with pytest.raises(BadField, match=r"input\.message\.type_url"):
        read_payload(payload_pb2.Payload(message=Any(value=b"x")), "input", MIB)


# --- definitions


@given(definitions())
def test_a06_an_exported_definition_is_the_same_when_registered_again(definition: Definition) -> None:
    message = definition_pb2.Definition.FromString(definition_to_wire(definition).SerializeToString())
    again, problems = read_definition(message, "definition")
    assert again == definition
    assert digest(again) == digest(definition)
    assert all(problem.severity is Severity.WARNING for problem in problems)
    assert definition_from_body(definition_body(definition)) == definition
    with pytest.raises(InvalidDefinition, match="more than this version knows of"):
        definition_from_body(definition_body(definition) + b"\xa2\x7d\x01x")  # field 2004, which is none


def step(**values: object) -> definition_pb2.StepDefinition:
    undo = definition_pb2.Compensation()
    fields = {"id": "a", "participant": "shop", "action": "reserve", "compensation": undo} | values
    return definition_pb2.StepDefinition(**fields)  # type: ignore[arg-type]


def definition(*steps: definition_pb2.StepDefinition, **values: object) -> definition_pb2.Definition:
    return definition_pb2.Definition(name="order", steps=steps or [step()], **values)  # type: ignore[arg-type]


def test_what_is_unset_takes_its_default() -> None:
    read, _ = read_definition(definition(), "definition")
    assert read.on_compensation_failure is OnCompensationFailure.HALT
    assert read.deadline_us is None
    assert read.steps[0].kind is Kind.COMPENSATABLE
    assert read.steps[0].timeout_us == TIMEOUT_US
    assert read.steps[0].retry is None
    assert read.steps[0].compensation is not None


def test_what_the_server_sets_does_not_count() -> None:
    plain, _ = read_definition(definition(), "definition")
    stored, _ = read_definition(definition(version=7, digest="sha256:0", create_time={"seconds": 5}), "definition")
    assert digest(plain) == digest(stored)


def test_a_policy_takes_what_is_unset_from_the_kind() -> None:
    policy = definition_pb2.RetryPolicy(backoff=definition_pb2.BACKOFF_FIXED)
    undo = definition_pb2.Compensation(retry=definition_pb2.RetryPolicy(jitter=0.0))
    first = step(retry=policy, compensation=undo)
    pivot = step(id="b", kind=definition_pb2.STEP_KIND_PIVOT, compensation=None, retry=policy, after=["a"])
    read, _ = read_definition(definition(first, pivot), "definition")
    assert read.steps[0].retry == Retry(attempts_max=3, backoff=Backoff.FIXED)
    assert read.steps[1].retry == Retry(attempts_max=10, backoff=Backoff.FIXED)
    assert read.steps[0].compensation is not None
    assert read.steps[0].compensation.retry == Retry(attempts_max=10, jitter=0.0)


def test_an_empty_policy_says_nothing() -> None:
    read, _ = read_definition(definition(step(retry=definition_pb2.RetryPolicy())), "definition")
    assert read.steps[0].retry is None


ZERO, BELOW = Duration(), Duration(nanos=-5)
AGES = Duration(seconds=101 * 365 * 24 * 3600)


@pytest.mark.parametrize(
    ("message", "field", "code"),
    [
        (definition(deadline=ZERO), "deadline", "POLICY_INVALID"),
        (definition(deadline=AGES), "deadline", "POLICY_INVALID"),
        (definition(step(timeout=ZERO)), "steps[0].timeout", "POLICY_INVALID"),
        (definition(step(deadline=BELOW)), "steps[0].deadline", "POLICY_INVALID"),
        (definition(step(compensation={"timeout": ZERO})), "steps[0].compensation.timeout", "POLICY_INVALID"),
        (definition(step(retry={"interval": ZERO})), "steps[0].retry.interval", "POLICY_INVALID"),
        (definition(step(retry={"factor": 0.0})), "steps[0].retry.factor", "POLICY_INVALID"),
        (definition(step(retry={"factor": float("nan")})), "steps[0].retry.factor", "POLICY_INVALID"),
        (definition(step(retry={"attempts_max": -2})), "steps[0].retry.attempts_max", "POLICY_INVALID"),
        (definition(step(retry={"backoff": 99})), "steps[0].retry.backoff", "ENUM_UNKNOWN"),
        (definition(step(kind=4)), "steps[0].kind", "ENUM_UNKNOWN"),
        (definition(on_compensation_failure=9), "on_compensation_failure", "ENUM_UNKNOWN"),
        (definition(step(), step(id="b", when="1 +")), "steps[1].when", "EXPRESSION_INVALID"),
        (definition(step(when="steps.x.output.n > 1")), "steps[0].when", "STEP_NOT_VISIBLE"),
        (definition(step(on_error=[definition_pb2.ErrorRule()])), "steps[0].on_error[0]", "RULE_INCOMPLETE"),
        (definition(step(requires=["input a"])), "steps[0].requires[0]", "PATH_INVALID"),
        (definition(step(output_schema="{")), "steps[0].output_schema", "SCHEMA_INVALID"),
        (definition(step(delay=ZERO)), "steps[0].delay", "POLICY_INVALID"),
        (definition(input_schema='{"$ref":"http://127.0.0.1/x"}'), "input_schema", "SCHEMA_INVALID"),
        (definition(output_template='"\\ud800"'), "output_template", "TEMPLATE_INVALID"),
        (definition(step(input_template="{")), "steps[0].input_template", "TEMPLATE_INVALID"),
    ],
)
def test_a04_what_is_wrong_is_named(message: definition_pb2.Definition, field: str, code: str) -> None:
    assert [(p.field, p.code) for p in diagnose(message)[1]] == [(field, code)]
    with pytest.raises(InvalidDefinition) as caught:
        read_definition(message, "inline_definition")
    assert [p.field for p in caught.value.problems] == [f"inline_definition.{field}"]


def test_all_that_is_wrong_is_named_at_once() -> None:
    _, problems = diagnose(definition(step(delay=ZERO, participant="", timeout=ZERO)))
    assert {p.field for p in problems} == {"steps[0].delay", "steps[0].participant", "steps[0].timeout"}
    assert {d.severity for d in problems_to_wire(problems)} == {definition_pb2.SEVERITY_ERROR}


def test_a_registered_definition_shows_what_the_store_knows() -> None:
    read, _ = read_definition(definition(), "definition")
    stored = StoredDefinition(
        namespace="default",
        name="order",
        version=3,
        digest="sha256:9",
        body=definition_body(read),
        create_time=1_500_000,
    )
    message = stored_definition_to_wire(stored)
    assert (message.name, message.version, message.digest) == ("order", 3, "sha256:9")
    assert message.create_time.ToMicroseconds() == 1_500_000


# --- sagas


def begun(*steps: definition_pb2.StepDefinition, input: Payload | None = None, **values: object) -> State:
    read, _ = read_definition(definition(*steps, **values), "definition")
    started = e.SagaStarted(
        time=1_000_000,
        namespace="default",
        saga_id="s-1",
        definition_digest=digest(read),
        input=input,
        labels={"shop": "north"},
        deadline=9_000_000,
    )
    return start(build_graph(read, digest(read)), started).state


def settle(state: State, name: str, verdict: Succeeded | Refused | Unknown, *, undo: bool = False) -> State:
    calls = state.step(name).compensation if undo else state.step(name).action
    return decide(state, Settle(name, undo, calls.attempts, verdict), state.update_time + 1_000_000).state


def test_a_running_saga_shows_its_steps() -> None:
    state = begun(step(), step(id="b", after=["a"]), input=Json('{"sku":"x"}'))
    state = settle(state, "a", Succeeded(Json("1"), (RelatedService("warehouse", "r-1"),)))
    state = settle(state, "b", Unknown(Error("UNAVAILABLE", "nobody there", "shop")))
    saga = saga_to_wire(state, 4)
    assert (saga.namespace, saga.saga_id, saga.definition, saga.definition_version) == ("default", "s-1", "order", 4)
    assert (saga.status, saga.sequence, dict(saga.labels)) == (saga_pb2.SAGA_STATUS_RUNNING, 5, {"shop": "north"})
    assert saga.input.json == '{"sku":"x"}'
    assert saga.create_time.ToMicroseconds() == 1_000_000
    assert saga.deadline_time.ToMicroseconds() == 9_000_000
    assert not saga.HasField("output")
    assert not saga.HasField("end_time")
    a, b = saga.steps
    assert (a.status, a.attempts, a.output.json) == (saga_pb2.STEP_STATUS_SUCCEEDED, 1, "1")
    assert (a.related_services[0].name, a.related_services[0].reference) == ("warehouse", "r-1")
    assert a.start_time.ToMicroseconds() == 1_000_000
    assert a.end_time.ToMicroseconds() == 2_000_000
    assert (b.status, b.error.code, b.error.participant) == (saga_pb2.STEP_STATUS_RUNNING, "UNAVAILABLE", "shop")
    assert b.input.json == '{"sku":"x"}'
    assert b.due_time.ToMicroseconds() == saga.due_time.ToMicroseconds() > 3_000_000


def test_a_step_that_was_not_called_shows_no_input() -> None:
    saga = saga_to_wire(begun(step(), step(id="b", after=["a"]), input=Json("1")), 1)
    assert saga.steps[0].HasField("input")
    assert not saga.steps[1].HasField("input")


def test_a_stuck_saga_shows_why() -> None:
    state = begun(step(), step(id="b", after=["a"], compensation={"not_needed": True}))
    state = settle(state, "a", Succeeded())
    state = settle(state, "b", Refused(Error("SOLD_OUT", "none left", "shop")))
    state = settle(state, "a", Refused(Error("LOCKED", "not now", "shop")), undo=True)
    saga = saga_to_wire(state, 1)
    assert saga.status == saga_pb2.SAGA_STATUS_STUCK
    assert (list(saga.stuck.steps), saga.stuck.error.code, saga.stuck.count) == (["a"], "LOCKED", 1)
    assert saga.stuck.compensating
    assert saga.stuck.start_time.ToMicroseconds() == 4_000_000
    assert (saga.cause.step.step, saga.cause.step.error.code) == ("b", "SOLD_OUT")
    assert saga.steps[0].compensation_error.code == "LOCKED"
    assert saga.steps[0].compensation_end_time.ToMicroseconds() == 4_000_000
    assert saga.steps[1].compensation_not_needed
    assert not saga.HasField("due_time")


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ((Json('{"n":1}'), Json("[2]")), {"a": {"n": 1}, "b": [2]}),
        ((None, Json("0")), {"a": None, "b": 0}),
        ((Message("type/x", b"\1"), Json("0")), {"b": 0}),
        ((Opaque(b"x", "text/plain"), Message("type/x", b"")), {}),
    ],
)
def test_the_output_is_by_default_the_json_outputs_by_step(
    outputs: tuple[Payload | None, Payload | None], expected: object
) -> None:
    state = begun(step(), step(id="b"))
    state = settle(settle(state, "a", Succeeded(outputs[0])), "b", Succeeded(outputs[1]))
    assert state.status is SagaStatus.COMPLETED
    saga = saga_to_wire(state, 1)
    assert json.loads(saga.output.json) == expected
    assert saga.end_time.ToMicroseconds() == 3_000_000


def test_the_output_is_the_templates_value_if_there_is_one() -> None:
    state = begun(step(), output_template='{"id":"${steps.a.output.id}"}')
    saga = saga_to_wire(settle(state, "a", Succeeded(Json('{"id":"x","more":1}'))), 1)
    assert json.loads(saga.output.json) == {"id": "x"}


def test_a_row_gives_the_view_of_lists() -> None:
    birth = Birth(
        definition_name="order",
        definition_version=2,
        definition_digest="sha256:1",
        fingerprint=b"",
        create_time=1_000_000,
        deadline=9_000_000,
        labels={"a": "b"},
    )
    head = Head(
        sequence=8,
        epoch=1,
        status=SagaStatus.COMPENSATED,
        paused=True,
        due_time=6_000_000,
        update_time=5_000_000,
        end_time=5_000_000,
    )
    saga = stored_saga_to_wire(StoredSaga(key=SagaKey("default", "s-1"), birth=birth, head=head))
    assert (saga.saga_id, saga.definition, saga.definition_version, saga.definition_digest) == (
        "s-1",
        "order",
        2,
        "sha256:1",
    )
    assert (saga.status, saga.paused, saga.sequence) == (saga_pb2.SAGA_STATUS_COMPENSATED, True, 8)
    times = (saga.create_time, saga.update_time, saga.end_time, saga.deadline_time, saga.due_time)
    assert [t.ToMicroseconds() for t in times] == [1_000_000, 5_000_000, 5_000_000, 9_000_000, 6_000_000]
