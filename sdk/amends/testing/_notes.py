"""Notes: calls and answers in a line each, of which the story is made that people read when an expectation fails."""

from __future__ import annotations

from typing import assert_never

from amends.testing._machine import Machine
from amends_server.engine.commands import InProgress, NotSent, Refused, Succeeded, Unknown, Verdict
from amends_server.engine.due import OwedCall
from amends_server.engine.payload import Json, Message, Opaque, Payload
from amends_server.engine.policy import SECOND_US

PAYLOAD_LENGTH_MAX = 120
"""Characters of a payload that are shown in a line: the differences of whole ones are shown by themselves."""


def note_call(machine: Machine, call: OwedCall) -> str:
    """Return what is called, with which key and request."""
    order = machine.order(call)
    return f"{_call(machine, call)} is called with key {order.key} and {short(order.input)}"


def note_verdict(machine: Machine, call: OwedCall, verdict: Verdict) -> str:
    """Return what became of a call."""
    return f"{_call(machine, call)} {_verdict(verdict)}"


def short(payload: Payload | None) -> str:
    """Return a payload in a few words."""
    match payload:
        case None:
            return "nothing"
        case Json(text):
            return text if len(text) <= PAYLOAD_LENGTH_MAX else f"{text[: PAYLOAD_LENGTH_MAX - 1]}…"
        case Message(type_url, value):
            return f"{len(value)} bytes of {type_url}"
        case Opaque(data, content_type):
            return f"{len(data)} bytes of {content_type}"
        case _:
            assert_never(payload)


def _call(machine: Machine, call: OwedCall) -> str:
    return f"{'the compensation of ' if call.compensation else ''}{machine.step_of(call)} #{call.attempt}"


def _verdict(verdict: Verdict) -> str:
    match verdict:
        case Succeeded(output):
            return f"succeeds with {short(output)}"
        case Refused(error):
            return f"refuses: {error.code} {error.message}".rstrip()
        case Unknown(error) | NotSent(error):
            return f"ends unknown: {error.code} {error.message}".rstrip()
        case InProgress(interval_us):
            again = "" if interval_us is None else f", to be asked again in {interval_us / SECOND_US:g} s"
            return f"is at work{again}"
        case _:
            assert_never(verdict)
