"""What tests of the server draw from: payloads, events of every kind, definitions."""

from __future__ import annotations

import json
from typing import get_args

from hypothesis import strategies as st

from amends_server.engine import events as e
from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
)
from amends_server.engine.payload import Error, Json, Message, Opaque, Payload, RelatedService
from amends_server.engine.policy import Backoff, Retry

EVENT_TYPES: tuple[type[e.Event], ...] = get_args(e.Event)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.integers(0, 253_402_300_799_999_999)  # until the end of the year 9999
durations = st.integers(1, 10**15)
attempts = st.integers(0, 2**31 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_payloads = st.builds(Json, json_values.map(json.dumps))
payloads: st.SearchStrategy[Payload] = st.one_of(
    json_payloads,
    st.builds(Json, texts),  # the journal does not look into it
    st.builds(Message, texts, st.binary(max_size=20)),
    st.builds(Opaque, st.binary(max_size=20), texts),
)
errors = st.builds(Error, texts, texts, texts, st.none() | payloads)
related = st.lists(st.builds(RelatedService, texts, texts), max_size=3).map(tuple)
causes: st.SearchStrategy[e.Cause] = st.one_of(
    st.builds(e.StepFailed, texts, errors),
    st.builds(e.DeadlinePassed, times),
    st.builds(e.Cancelled, texts, texts),
    st.builds(e.TurnedByOperator, texts, texts),
)

_FIELDS: dict[str, st.SearchStrategy[object]] = {
    "time": times,
    "namespace": st.just("default"),
    "saga_id": st.just("s-1"),
    "definition_digest": texts,
    "input": st.none() | payloads,
    "output": st.none() | payloads,
    "arguments": st.none() | payloads,
    "labels": st.dictionaries(texts, texts, max_size=3),
    "deadline": st.none() | times,
    "principal": texts,
    "traceparent": texts,
    "step": texts,
    "steps": st.lists(texts, max_size=3).map(tuple),
    "attempt": attempts,
    "error": errors,
    "output_error": st.none() | errors,
    "stored": st.booleans(),
    "related_services": related,
    "due_time": times,
    "start_time": st.none() | times,
    "refused": st.booleans(),
    "resolution": st.sampled_from(e.Resolution),
    "reason": texts,
    "cause": causes,
    "compensation": st.booleans(),
    "reply": st.sampled_from(e.LateReply),
}


def events_of(kind: type[e.Event]) -> st.SearchStrategy[e.Event]:
    """Events of one kind, each field set."""
    fields = dict(_FIELDS)
    if kind is e.StepDeferred:
        fields["due_time"] = st.none() | times
    return st.builds(kind, **{name: fields[name] for name in kind.__dataclass_fields__})


events = st.one_of([events_of(kind) for kind in EVENT_TYPES])

retries = st.builds(
    Retry,
    attempts_max=st.sampled_from([-1, 1, 3, 2**31 - 1]),
    interval_us=durations,
    interval_max_us=durations,
    backoff=st.sampled_from(Backoff),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
)
templates = st.none() | st.sampled_from(['"${input}"', '{"a":"${input.b[0]}"}', "7"])
undos = st.just(Compensation(not_needed=True)) | st.builds(
    Compensation, template=templates, retry=st.none() | retries, timeout_us=st.none() | durations
)


rules = st.builds(
    lambda codes, when, then, output: ErrorRule(
        codes=codes, when=when, then=then, output_template=output if then is OnError.CONTINUE else None
    ),
    st.sampled_from([(), ("A", "B")]),
    st.sampled_from([None, "error.code == 'A'"]),
    st.sampled_from(OnError),
    templates,
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Sound definitions: compensatable steps in any order, then perhaps a pivot after all, then retriable steps."""
    steps: list[Step] = []
    kinds = [Kind.COMPENSATABLE] * draw(st.integers(0, 3)) + [Kind.PIVOT] * draw(st.integers(0, 1))
    kinds += [Kind.RETRIABLE] * draw(st.integers(0 if kinds else 1, 2))
    for i, kind in enumerate(kinds):
        known = [step.id for step in steps]
        undoable = kind is Kind.COMPENSATABLE
        steps.append(
            Step(
                id=f"s{i}",
                participant=draw(st.sampled_from(["bank", "shop"])),
                action=draw(st.sampled_from(["reserve", "charge"])),
                kind=kind,
                compensation=draw(undos) if undoable else None,
                after=tuple(draw(st.lists(st.sampled_from(known), unique=True)) if undoable and known else known),
                input_template=draw(templates),
                retry=draw(st.none() | retries),
                timeout_us=draw(durations),
                deadline_us=draw(st.none() | durations),
                when=draw(st.sampled_from([None, "input.a > 1"])),
                on_error=tuple(draw(st.lists(rules, max_size=2))),
                requires=draw(st.sampled_from([(), ("input.a", "saga.labels.b")])),
                output_schema=draw(st.sampled_from([None, '{"type":["object","integer"]}'])),
                delay_us=draw(st.none() | durations),
            )
        )
    return Definition(
        name=draw(st.sampled_from(["order", "a.b-c_9"])),
        steps=tuple(draw(st.permutations(steps))),
        output_template=draw(templates),
        deadline_us=draw(st.none() | durations),
        on_compensation_failure=draw(st.sampled_from(OnCompensationFailure)),
        description=draw(texts),
        input_schema=draw(st.sampled_from([None, "true"])),
    )
