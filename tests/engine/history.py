"""Golden histories as text: a definition, then each command with the events that it leads to and the state after it.

# What the history shows.
saga deadline=500                         one line, with start=TIME on_failure=continue output=TEMPLATE, and
                                          events_max=COUNT for the way forward, the way back, and repairs alike
step a                                    more: kind, after=a,b attempts interval deadline input undo undo_attempts
                                          when=EXPRESSION requires=PATH,PATH output_schema=SCHEMA delay=TIME
                                          on_error=CODE|CODE[EXPRESSION]:compensate|continue|retry:TEMPLATE;…
> +1 A(a) succeeds {"n":1}                microseconds later, the action of `a` succeeds; C(a) is its compensation
    StepSucceeded a 1 output={"n":1}
    = COMPLETED | a SUCCEEDED
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from amends_server.engine import history as limits
from amends_server.engine.action import raise_if_late
from amends_server.engine.commands import (
    Cancel,
    Command,
    Complete,
    Fail,
    InProgress,
    NotSent,
    Pause,
    Recover,
    Refused,
    Rejected,
    Resolve,
    Resume,
    Retry,
    Settle,
    Succeeded,
    Unknown,
    Verdict,
    Wake,
)
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
)
from amends_server.engine.due import due
from amends_server.engine.events import Cause, DeadlinePassed, Event, Resolution, StepFailed
from amends_server.engine.evolve import fold
from amends_server.engine.payload import Error, Json
from amends_server.engine.policy import ENDLESS
from amends_server.engine.policy import Retry as RetryPolicy
from amends_server.engine.state import State
from tests.engine.build import NO, START, TIMEOUT, graph_of, started

INTERVAL_US = 100
EACH_STEP = ("EVENTS_PER_STEP_MAX", "ROOM_BACK_PER_STEP")
UNSENT = Error("NOT_SENT", "Not sent.")
CALL = re.compile(r"(?P<kind>[AC])\((?P<step>\w+)\)(?:#(?P<attempt>\d+))? (?P<verb>\w+)(?: (?P<more>.*))?")
RULE = re.compile(r"(?P<codes>[\w|*]+)(?:\[(?P<when>.*)\])?:(?P<then>\w+)(?::(?P<output>.*))?")
BY_OPERATOR = ("why", "operator")


def replay(text: str) -> str:
    """Return a history with what really follows from its commands."""
    lines = text.splitlines()
    kept = [line for line in lines if line and not line.startswith("    ")]
    head = [line for line in kept if not line.startswith("> ")]
    commands = [line for line in kept if line.startswith("> ")]
    definition = [line for line in head if not line.startswith("#")]
    saga = next((_settings(line.split()[1:]) for line in definition if line.startswith("saga")), {})
    with pytest.MonkeyPatch.context() as patch:
        if (most := _number(saga, "events_max")) is not None:
            for limit in (*EACH_STEP, "EVENTS_MAX", "ROOM_BACK", "ROOM_REPAIRS"):
                patch.setattr(limits, limit, 0 if limit in EACH_STEP else most)
        shown = list(_replay(parse_definition(definition), commands, _number(saga, "start")))
    return "\n".join([*head, "", *shown]) + "\n"


def parse_definition(lines: list[str]) -> Definition:
    saga = next((_settings(line.split()[1:]) for line in lines if line.startswith("saga")), {})
    steps = tuple(_parse_step(line) for line in lines if line.startswith("step "))
    return Definition(
        name="golden",
        steps=steps,
        output_template=saga.get("output"),
        deadline_us=_number(saga, "deadline"),
        on_compensation_failure=OnCompensationFailure(saga.get("on_failure", "halt")),
    )


def _parse_step(line: str) -> Step:
    _, name, *rest = line.split()
    more = _settings(rest)
    kind = Kind(more.get("kind", "compensatable"))
    return Step(
        id=name,
        participant="p",
        action="do",
        kind=kind,
        compensation=_parse_compensation(more) if kind is Kind.COMPENSATABLE else None,
        after=tuple(more["after"].split(",")) if "after" in more else (),
        input_template=more.get("input"),
        retry=_retry(more.get("attempts", "1"), more),
        deadline_us=_number(more, "deadline"),
        when=more.get("when"),
        requires=tuple(more["requires"].split(",")) if "requires" in more else (),
        output_schema=more.get("output_schema"),
        on_error=tuple(map(_parse_rule, more["on_error"].split(";"))) if "on_error" in more else (),
        delay_us=_number(more, "delay"),
    )


def _parse_rule(text: str) -> ErrorRule:
    match = RULE.fullmatch(text)
    assert match, f"cannot read the rule `{text}`"
    codes = () if match["codes"] == "*" else tuple(match["codes"].split("|"))
    return ErrorRule(codes=codes, when=match["when"], then=OnError(match["then"]), output_template=match["output"])


def _parse_compensation(more: dict[str, str]) -> Compensation:
    if more.get("undo") == "not_needed":
        return Compensation(not_needed=True)
    return Compensation(template=more.get("undo"), retry=_retry(more.get("undo_attempts", "1"), more))


def _retry(attempts: str, more: dict[str, str]) -> RetryPolicy:
    attempts_max = ENDLESS if attempts == "endless" else int(attempts)
    return RetryPolicy(attempts_max=attempts_max, interval_us=_number(more, "interval") or INTERVAL_US, jitter=0)


def _settings(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _number(more: dict[str, str], name: str) -> int | None:
    return int(more[name]) if name in more else None


def _replay(definition: Definition, commands: list[str], start_time: int | None) -> Iterator[str]:
    graph = graph_of(definition)
    begin = replace(started(graph), start_time=None if start_time is None else START + start_time)
    journal, state = start(graph, begin)
    now = START
    yield commands[0]
    assert commands[0] == "> start"
    yield from _show(journal, state)
    for line in commands[1:]:
        words = line[2:]
        if words.startswith("+"):
            later, words = words.split(" ", 1)
            now += int(later)
        yield line
        command = parse_command(words, state)
        try:
            events, state = decide(state, command, now)
            journal = [*journal, *events]
            assert fold(graph, journal) == state
            yield from _show(events, state)
            raise_if_late(command, events)
        except Rejected as rejected:
            yield f"    ! {rejected.reason}: {rejected}"


def parse_command(words: str, state: State) -> Command:
    match words.split():
        case ["wake"]:
            return Wake()
        case ["recover"]:
            return Recover()
        case ["restored"]:
            return Recover(restored=True)
        case ["cancel"]:
            return Cancel(*BY_OPERATOR)
        case ["pause"]:
            return Pause(*BY_OPERATOR)
        case ["resume"]:
            return Resume(*BY_OPERATOR)
        case ["retry"]:
            return Retry(*BY_OPERATOR)
        case ["fail"]:
            return Fail(*BY_OPERATOR)
        case ["resolve", step, resolution, *output]:
            return Resolve(step, Resolution(resolution), Json(output[0]) if output else None, *BY_OPERATOR)
        case ["complete", *_]:
            settle = _parse_settle(words.removeprefix("complete "), state)
            assert not isinstance(settle.verdict, InProgress)
            return Complete(settle.step, settle.attempt, settle.verdict)
        case _:
            return _parse_settle(words, state)


def _parse_settle(words: str, state: State) -> Settle:
    match = CALL.fullmatch(words)
    assert match, f"cannot read the command `{words}`"
    step, compensation = match["step"], match["kind"] == "C"
    call = state.step(step).compensation if compensation else state.step(step).action
    return Settle(step, compensation, int(match["attempt"] or call.attempts), _verdict(match["verb"], match["more"]))


def _verdict(verb: str, more: str | None) -> Verdict:
    match verb:
        case "succeeds":
            return Succeeded(Json(more) if more else None)
        case "refused":
            data = Json(more) if more and more != "stored" else None
            return Refused(replace(NO, data=data), stored=more == "stored")
        case "waits":
            return InProgress(int(more) if more else None)
        case "unknown":
            return Unknown(TIMEOUT, again=more != "for good")
        case "unsent":
            return NotSent(UNSENT, int(more or 0))
        case _:
            raise AssertionError(f"no verdict is called `{verb}`")


def _show(events: list[Event], state: State) -> Iterator[str]:
    yield from (f"    {_show_event(event)}" for event in events)
    steps = ", ".join(f"{n.step.id} {s.status.name}" for n, s in zip(state.graph.nodes, state.steps, strict=True))
    next_time = due(state).next_time
    marks = [state.status.name, *(["paused"] if state.paused else []), *([_at(next_time)] if next_time else [])]
    yield f"    = {' '.join(marks)} | {steps}"


def _show_event(event: Event) -> str:
    words = [type(event).__name__]
    for name in ("step", "attempt", "resolution", "stored", "refused", "compensation", "reply", "steps"):
        value = getattr(event, name, None)
        if isinstance(value, bool):
            words += [name] if value else []
        elif value is not None:
            words.append(" ".join(value) if isinstance(value, tuple) else str(getattr(value, "value", value)))
    for name in ("input", "arguments", "output", "error", "output_error", "cause", "due_time"):
        value = getattr(event, name, None)
        words += [f"{name}={_show_value(value)}"] if value is not None else []
    return " ".join(words)


def _show_value(value: Json | Error | Cause | int) -> str:
    match value:
        case Json(text):
            return text
        case Error(code, message):
            return code if replace(value, data=None) in (NO, TIMEOUT, UNSENT) else f"{code}({message})"
        case StepFailed(step, error):
            return f"StepFailed({step}, {error.code})"
        case DeadlinePassed(deadline):
            return f"DeadlinePassed({_at(deadline)})"
        case int():
            return _at(value)
        case _:
            return type(value).__name__


def _at(time: int) -> str:
    return f"@{time - START}"
