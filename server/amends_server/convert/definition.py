"""Definitions. What comes from outside is normalised, so that equal content has an equal digest, and checked whole.

Out again it says all that it said, with the timeouts that it has by default: a stored definition keeps its meaning when
the defaults of a later version are others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from amends.v1 import definition_pb2 as pb
from amends.v1 import orchestrator_pb2
from amends_server.convert.enums import (
    BACKOFF_FROM_WIRE,
    BACKOFF_TO_WIRE,
    KIND_FROM_WIRE,
    KIND_TO_WIRE,
    ON_COMPENSATION_FAILURE_FROM_WIRE,
    ON_COMPENSATION_FAILURE_TO_WIRE,
    OUTCOME_TO_WIRE,
    SEVERITY_TO_WIRE,
)
from amends_server.convert.times import duration_from_wire, set_duration, set_time
from amends_server.convert.unknown import drop_unknown
from amends_server.engine.checks.advice import advise
from amends_server.engine.checks.plan import Plan
from amends_server.engine.checks.problem import InvalidDefinition, Problem, Severity, error
from amends_server.engine.checks.validation import FINDINGS_MAX, STEPS_MAX, check
from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
)
from amends_server.engine.graph import default_retry
from amends_server.engine.policy import COMPENSATION_RETRY, SECOND_US, TIMEOUT_US, Backoff, Retry
from amends_server.store.protocol import StoredDefinition

DURATION_US_MAX = 100 * 365 * 24 * 3600 * SECOND_US
"""A hundred years: more means a mistake in the unit, and the year 9999, where Timestamp ends, stays out of reach."""


_RULE_ACTIONS = {"compensate": OnError.COMPENSATE, "continue_with": OnError.CONTINUE, "retry": OnError.RETRY}


def read_definition(message: pb.Definition, field: str) -> tuple[Definition, list[Problem]]:
    """Return a definition that came from outside, and the warnings. `field` begins the paths of findings.

    :raises InvalidDefinition: if there are errors, with all that was found.
    """
    definition, problems = diagnose(message)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise InvalidDefinition([replace(problem, field=f"{field}.{problem.field}") for problem in problems])
    return definition, problems


def diagnose(message: pb.Definition) -> tuple[Definition, list[Problem]]:
    """Return a definition as far as it can be read, and everything that was found, errors first."""
    problems: list[Problem] = []
    definition = _read(message, problems)
    if not any(problem.code == "ENUM_UNKNOWN" for problem in problems):  # the default in its place would mislead
        problems += check(definition)
    if not problems:
        problems += advise(definition)
    problems.sort(key=lambda problem: problem.severity is not Severity.ERROR)
    return definition, problems[:FINDINGS_MAX]


def definition_to_wire(definition: Definition) -> pb.Definition:
    """Return the message of a definition, without version, digest and time."""
    message = pb.Definition(
        name=definition.name,
        steps=[_step_to_wire(step) for step in definition.steps],
        output_template=definition.output_template or "",
        on_compensation_failure=ON_COMPENSATION_FAILURE_TO_WIRE[definition.on_compensation_failure],
        description=definition.description,
        input_schema=definition.input_schema or "",
    )
    if definition.deadline_us is not None:
        set_duration(message.deadline, definition.deadline_us)
    return message


def stored_definition_to_wire(stored: StoredDefinition) -> pb.Definition:
    """Return the message of a registered definition."""
    message = pb.Definition.FromString(stored.body)
    message.version = stored.version
    message.digest = stored.digest
    set_time(message.create_time, stored.create_time)
    return message


def definition_body(definition: Definition) -> bytes:
    """Return the bytes to store of a definition."""
    return definition_to_wire(definition).SerializeToString(deterministic=True)


def definition_from_body(body: bytes) -> Definition:
    """Return the definition of stored bytes.

    :raises InvalidDefinition: if this version cannot run it, for example because a later one stored it.
    """
    problems: list[Problem] = []
    message = pb.Definition.FromString(body)
    definition = _read(message, problems)
    if drop_unknown(message):
        problems.append(error("", "NEWER_VERSION", "It says more than this version knows of: ask a newer server."))
    if problems:
        raise InvalidDefinition(problems)
    return definition


def plan_to_wire(plan: Plan) -> orchestrator_pb2.CompensationPlan:
    """Return a message for what would happen if a step failed."""
    return orchestrator_pb2.CompensationPlan(
        failed_step=plan.step,
        compensated_steps=[step for step, _ in plan.undone],
        uncertain=[uncertain for _, uncertain in plan.undone],
        if_refused=OUTCOME_TO_WIRE[plan.if_refused],
        if_unknown=OUTCOME_TO_WIRE[plan.if_unknown],
        attempts_max=plan.attempts_max,
    )


def problems_to_wire(problems: Iterable[Problem]) -> list[pb.Diagnostic]:
    """Return messages for findings."""
    return [
        pb.Diagnostic(severity=SEVERITY_TO_WIRE[p.severity], field=p.field, code=p.code, message=p.message)
        for p in problems
    ]


def _read(message: pb.Definition, problems: list[Problem]) -> Definition:
    choice = ON_COMPENSATION_FAILURE_FROM_WIRE.get(message.on_compensation_failure)
    if choice is None:
        problems.append(_enum_unknown("on_compensation_failure", message.on_compensation_failure))
    return Definition(
        name=message.name,
        # One more than there may be is enough to find that there are too many.
        steps=tuple(_read_step(s, f"steps[{i}]", problems) for i, s in enumerate(message.steps[: STEPS_MAX + 1])),
        output_template=message.output_template or None,
        deadline_us=_read_duration(message, "deadline", "deadline", problems),
        on_compensation_failure=choice or OnCompensationFailure.HALT,
        description=message.description,
        input_schema=message.input_schema or None,
    )


def _read_step(message: pb.StepDefinition, at: str, problems: list[Problem]) -> Step:
    kind = KIND_FROM_WIRE.get(message.kind)
    if kind is None:
        problems.append(_enum_unknown(f"{at}.kind", message.kind))
        kind = Kind.COMPENSATABLE
    timeout_us = _read_duration(message, "timeout", f"{at}.timeout", problems)
    compensation = None
    if message.HasField("compensation"):
        compensation = _read_compensation(message.compensation, f"{at}.compensation", problems)
    return Step(
        id=message.id,
        participant=message.participant,
        action=message.action,
        kind=kind,
        compensation=compensation,
        after=tuple(message.after),
        input_template=message.input_template or None,
        retry=_read_retry(message, f"{at}.retry", default_retry(kind), problems),
        timeout_us=TIMEOUT_US if timeout_us is None else timeout_us,
        deadline_us=_read_duration(message, "deadline", f"{at}.deadline", problems),
        when=message.when or None,
        on_error=tuple(_read_rule(rule, f"{at}.on_error[{j}]", problems) for j, rule in enumerate(message.on_error)),
        requires=tuple(message.requires),
        output_schema=message.output_schema or None,
        delay_us=_read_duration(message, "delay", f"{at}.delay", problems),
    )


def _read_rule(message: pb.ErrorRule, at: str, problems: list[Problem]) -> ErrorRule:
    action = message.WhichOneof("action")
    if action is None:
        text = "Say what to do with the error: compensate, continue_with or retry."
        problems.append(error(at, "RULE_INCOMPLETE", text))
    return ErrorRule(
        codes=tuple(message.codes),
        when=message.when or None,
        then=_RULE_ACTIONS.get(action or "", OnError.COMPENSATE),
        output_template=message.continue_with.output_template or None,
    )


def _read_compensation(message: pb.Compensation, at: str, problems: list[Problem]) -> Compensation:
    return Compensation(
        not_needed=message.not_needed,
        template=message.template or None,
        retry=_read_retry(message, f"{at}.retry", COMPENSATION_RETRY, problems),
        timeout_us=_read_duration(message, "timeout", f"{at}.timeout", problems),
    )


def _read_retry(
    message: pb.StepDefinition | pb.Compensation, at: str, default: Retry, problems: list[Problem]
) -> Retry | None:
    """Return a policy in which what is unset is the default; None where nothing is set."""
    policy = message.retry
    if policy.ByteSize() == 0:
        return None
    backoff = BACKOFF_FROM_WIRE.get(policy.backoff)
    if backoff is None:
        problems.append(_enum_unknown(f"{at}.backoff", policy.backoff))
    interval_us = _read_duration(policy, "interval", f"{at}.interval", problems)
    interval_max_us = _read_duration(policy, "interval_max", f"{at}.interval_max", problems)
    return Retry(
        attempts_max=policy.attempts_max or default.attempts_max,
        interval_us=default.interval_us if interval_us is None else interval_us,
        interval_max_us=default.interval_max_us if interval_max_us is None else interval_max_us,
        backoff=backoff or Backoff.EXPONENTIAL,
        factor=policy.factor if policy.HasField("factor") else default.factor,
        jitter=policy.jitter if policy.HasField("jitter") else default.jitter,
    )


def _read_duration(
    message: pb.Definition | pb.StepDefinition | pb.Compensation | pb.RetryPolicy,
    name: str,
    field: str,
    problems: list[Problem],
) -> int | None:
    """Return the microseconds of a duration; None if it is unset. Zero and less are left to the engine's check."""
    if not message.HasField(name):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return None
    duration_us = duration_from_wire(getattr(message, name))
    if duration_us > DURATION_US_MAX:
        problems.append(
            error(field, "POLICY_INVALID", "The duration must be 100 years or less; leave it out for none.")
        )
        return DURATION_US_MAX
    return duration_us


def _enum_unknown(field: str, number: int) -> Problem:
    return error(field, "ENUM_UNKNOWN", f"{number} is no value that this version knows; take one of those documented.")


def _step_to_wire(step: Step) -> pb.StepDefinition:
    message = pb.StepDefinition(
        id=step.id,
        participant=step.participant,
        action=step.action,
        kind=KIND_TO_WIRE[step.kind],
        after=step.after,
        input_template=step.input_template or "",
    )
    set_duration(message.timeout, step.timeout_us)
    if step.deadline_us is not None:
        set_duration(message.deadline, step.deadline_us)
    if step.retry is not None:
        _set_retry(message.retry, step.retry)
    if step.compensation is not None:
        _set_compensation(message.compensation, step.compensation)
    _set_conditions(message, step)
    return message


def _set_conditions(to: pb.StepDefinition, step: Step) -> None:
    """Write what decides whether, when and how a step counts as done."""
    to.when = step.when or ""
    to.requires.extend(step.requires)
    to.output_schema = step.output_schema or ""
    if step.delay_us is not None:
        set_duration(to.delay, step.delay_us)
    for rule in step.on_error:
        _set_rule(to.on_error.add(), rule)


def _set_rule(to: pb.ErrorRule, rule: ErrorRule) -> None:
    to.codes.extend(rule.codes)
    to.when = rule.when or ""
    match rule.then:
        case OnError.COMPENSATE:
            to.compensate.SetInParent()
        case OnError.CONTINUE:
            to.continue_with.SetInParent()
            to.continue_with.output_template = rule.output_template or ""
        case OnError.RETRY:
            to.retry.SetInParent()
        case _:
            assert_never(rule.then)


def _set_compensation(to: pb.Compensation, compensation: Compensation) -> None:
    to.SetInParent()  # a compensation that says nothing is one all the same
    to.not_needed = compensation.not_needed
    to.template = compensation.template or ""
    if compensation.retry is not None:
        _set_retry(to.retry, compensation.retry)
    if compensation.timeout_us is not None:
        set_duration(to.timeout, compensation.timeout_us)


def _set_retry(to: pb.RetryPolicy, retry: Retry) -> None:
    to.attempts_max = retry.attempts_max
    set_duration(to.interval, retry.interval_us)
    set_duration(to.interval_max, retry.interval_max_us)
    to.backoff = BACKOFF_TO_WIRE[retry.backoff]
    to.factor = retry.factor
    to.jitter = retry.jitter
