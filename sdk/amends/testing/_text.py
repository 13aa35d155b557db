"""What people read when an expectation fails: the journal so far, and how data differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import assert_never

from amends.client.events import Event
from amends.testing._machine import Machine
from amends.v1 import orchestrator_pb2
from amends_server.convert.enums import SAGA_STATUS_TO_WIRE
from amends_server.convert.event import event_to_wire
from amends_server.engine.evolve import evolve, fold
from amends_server.engine.payload import Json, Message, Opaque, Payload
from amends_server.engine.policy import SECOND_US, Time


def journal_of(machine: Machine) -> tuple[Event, ...]:
    """Return the events as clients see them."""
    return tuple(Event.of(response) for response in _watched(machine))


def journal_text(machine: Machine) -> str:
    """Return the journal, a line an event: its number, the seconds since the start, what happened, and why."""
    journal = journal_of(machine)
    return "\n".join(_event_line(event, event.time - journal[0].time) for event in journal)


def story_text(machine: Machine, now: Time) -> str:
    """Return how a saga stands, what was called and answered so far, and its journal."""
    notes = [f"{number:>4}  {note}" for number, note in enumerate(machine.notes, start=1)] or ["      nothing yet"]
    story = "\n".join(["The story so far:", *notes])
    return f"{_standing_text(machine, now)}\n{story}\nThe journal so far:\n{journal_text(machine)}"


def _standing_text(machine: Machine, now: Time) -> str:
    """Return in a sentence how a saga stands, and what leads on."""
    calls = [_call_text(machine, *key) for key in _open(machine)]
    text = f"Now it is {machine.state.status.name}"
    if calls:
        text += f", and waits for answers to {', '.join(calls)}"
    next_time = machine.next_time
    if next_time is not None:
        text += f"; something is due in {(next_time - now) / SECOND_US:g} s: `.when_due()` or `.after(…)` goes there"
    return text + "."


def same(wanted: Payload | None, got: Payload | None) -> bool:
    """Tell whether two payloads mean the same: JSON by its value, a missing one like null."""
    return _value(wanted) == _value(got)


def difference(wanted: Payload | None, got: Payload | None) -> str:
    """Return how data differ, line by line."""
    lines = difflib.ndiff(_lines(wanted), _lines(got))
    return "\n".join(["- wanted", "+ got", "", *(line.rstrip("\n") for line in lines if not line.startswith("?"))])


def _watched(machine: Machine) -> Iterator[orchestrator_pb2.WatchSagaResponse]:
    state = fold(machine.state.graph, machine.journal[:1])
    for sequence, event in enumerate(machine.journal, start=1):
        state = evolve(state, event) if sequence > 1 else state
        yield orchestrator_pb2.WatchSagaResponse(
            event=event_to_wire(event, sequence), status=SAGA_STATUS_TO_WIRE[state.status]
        )


def _open(machine: Machine) -> list[tuple[str, bool, int]]:
    return [(machine.step_of(call), call.compensation, call.attempt) for call in machine.calls]


def _call_text(machine: Machine, step: str, compensation: bool, attempt: int) -> str:
    action = machine.state.graph.node(step).step.action
    named = step if step == action else f"{step} ({action})"
    return f"{'the compensation of ' if compensation else ''}{named}, attempt {attempt}"


def _event_line(event: Event, after: timedelta) -> str:
    step = f"{event.step or ''}{f' #{event.attempt}' if event.attempt else ''}"
    why = event.error or event.cause or event.reason
    return f"{event.sequence:>4}  {after.total_seconds():>+9.3f} s  {event.kind:<28}  {step:<20}  {why}".rstrip()


def _value(payload: Payload | None) -> object:
    match payload:
        case None:
            return None
        case Json(text):
            return json.loads(text)
        case Message() | Opaque():
            return payload
        case _:
            assert_never(payload)


def _lines(payload: Payload | None) -> list[str]:
    value = _value(payload)
    if isinstance(value, Message | Opaque):
        return [repr(value)]
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
