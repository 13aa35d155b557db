"""Raw definitions in a line a step, with retries that do not keep a test waiting."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf import duration_pb2

from amends.v1 import definition_pb2 as pb

WORKER = "worker"
"""The participant that steps are for unless they say otherwise."""

INTERVAL_S = 0.01

_PREVIOUS = "<the previous one>"


def definition(
    name: str,
    *steps: pb.StepDefinition | str,
    output: object = None,
    deadline_s: float | None = None,
    on_compensation_failure: str = "HALT",
    input_schema: object = None,
) -> pb.Definition:
    """A definition. Steps run one after another unless they say `after`; a text is a step of that id, all defaults."""
    made: list[pb.StepDefinition] = []
    for each in steps:
        one = pb.StepDefinition()
        one.CopyFrom(step(each) if isinstance(each, str) else each)
        if list(one.after) == [_PREVIOUS]:
            one.after[:] = [made[-1].id] if made else []
        made.append(one)
    return pb.Definition(
        name=name,
        steps=made,
        output_template="" if output is None else json.dumps(output),
        deadline=seconds(deadline_s),
        on_compensation_failure=pb.OnCompensationFailure.Value(f"ON_COMPENSATION_FAILURE_{on_compensation_failure}"),
        input_schema="" if input_schema is None else json.dumps(input_schema),
    )


def step(
    id: str,
    *,
    participant: str = WORKER,
    action: str | None = None,
    after: Sequence[str] | None = None,
    kind: str = "COMPENSATABLE",
    undo: bool | None = True,
    input: object = None,
    arguments: object = None,
    attempts: int = 3,
    undo_attempts: int = 3,
    interval_s: float = INTERVAL_S,
    backoff: str = "FIXED",
    factor: float | None = None,
    jitter: float = 0.0,
    interval_max_s: float | None = None,
    timeout_s: float | None = None,
    undo_timeout_s: float | None = None,
    deadline_s: float | None = None,
    when: str = "",
    requires: Sequence[str] = (),
    on_error: Sequence[pb.ErrorRule] = (),
    output_schema: object = None,
    delay_s: float | None = None,
) -> pb.StepDefinition:
    """A step. `after` None is after the previous one, empty is at once. `undo` False: not needed; None: nothing said.

    `input` and `arguments` are templates as values, for example `{"sku": "${input.sku}"}`.
    """
    retry = dict(
        interval=seconds(interval_s),
        interval_max=seconds(interval_max_s),
        backoff=pb.Backoff.Value(f"BACKOFF_{backoff}"),
        factor=factor,
        jitter=jitter,
    )
    compensation = pb.Compensation(
        template="" if arguments is None else json.dumps(arguments),
        retry=pb.RetryPolicy(attempts_max=undo_attempts, **retry),
        timeout=seconds(undo_timeout_s),
    )
    compensations = {True: compensation, False: pb.Compensation(not_needed=True), None: None}
    return pb.StepDefinition(
        id=id,
        participant=participant,
        action=id if action is None else action,
        kind=pb.StepKind.Value(f"STEP_KIND_{kind}"),
        compensation=compensations[undo] if kind == "COMPENSATABLE" else None,
        after=[_PREVIOUS] if after is None else after,
        input_template="" if input is None else json.dumps(input),
        retry=pb.RetryPolicy(attempts_max=attempts, **retry),
        timeout=seconds(timeout_s),
        deadline=seconds(deadline_s),
        when=when,
        requires=requires,
        on_error=on_error,
        output_schema="" if output_schema is None else json.dumps(output_schema),
        delay=seconds(delay_s),
    )


def rule(then: str, *codes: str, when: str = "", output: object = None) -> pb.ErrorRule:
    """A rule for business errors. `then` is compensate, continue or retry; `output` a template as a value."""
    made = pb.ErrorRule(codes=codes, when=when)
    match then:
        case "compensate":
            made.compensate.SetInParent()
        case "continue":
            made.continue_with.SetInParent()
            made.continue_with.output_template = "" if output is None else json.dumps(output)
        case "retry":
            made.retry.SetInParent()
        case _:
            raise AssertionError(f"no rule does `{then}`")
    return made


def seconds(value: float | None) -> duration_pb2.Duration | None:
    """A duration for the wire, negative ones too."""
    if value is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(value * 1_000_000))
    return duration


THREE = definition("three", "one", "two", "three")
"""Three steps, one after another."""
