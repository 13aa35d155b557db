"""What a scripted participant does with a call: an outcome, a fault of the wire, or waiting for the test."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import grpc

from amends.payloads import encode
from amends.v1 import payload_pb2, saga_pb2
from tests.acceptance.harness_ledger import WAIT_S


class Fault(Enum):
    """What a participant does instead of answering."""

    HANG = "hang"
    DIE = "die"


class Gate:
    """Holds calls until the test opens it. Open it for good with `release`."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._released = asyncio.Event()
        self.waiting = 0

    def before(self, answer: Answer | None = None) -> Answer:
        """The answer, held before it has its effect. Without one: success."""
        return replace(answer or succeed(), before=self)

    def after(self, answer: Answer | None = None) -> Answer:
        """The answer, held after it had its effect and before the reply is sent. Without one: success."""
        return replace(answer or succeed(), after=self)

    async def reached(self, count: int = 1) -> None:
        """Wait until so many calls are held here at a time."""
        async with asyncio.timeout(WAIT_S):
            while self.waiting < count:
                self._changed.clear()
                await self._changed.wait()

    def release(self) -> None:
        """Let all calls go on, those that are held and those that come."""
        self._released.set()

    async def hold(self) -> None:
        self.waiting += 1
        self._changed.set()
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A call's script: hold, have the effect, hold, then reply (a reply, raw bytes or a status), or a fault instead.

    `effect` is had once a key however often the call comes; a compensation undoes that of its action.
    """

    reply: saga_pb2.Reply | None = None
    body: bytes | None = None
    code: grpc.StatusCode | None = None
    details: str = ""
    fault: Fault | None = None
    effect: bool = False
    before: Gate | None = None
    after: Gate | None = None

    @property
    def outcome(self) -> str:
        """In a word, for the ledger."""
        if self.fault is not None:
            return self.fault.value
        if self.code is not None:
            return self.code.name
        return "raw" if self.reply is None else str(self.reply.status)


def succeed(output: object = None, *, related: Mapping[str, str] | None = None, stored: bool = False) -> Answer:
    """Success, with the effect. `related` are other services and their references."""
    reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=encode(output), stored=stored)
    for name, reference in (related or {}).items():
        reply.related_services.add(name=name, reference=reference)
    return Answer(reply=reply, effect=True)


def refuse(code: str = "REFUSED", message: str = "", *, stored: bool = False, data: object = None) -> Answer:
    """A business error, without effect."""
    error = payload_pb2.Error(code=code, message=message, data=None if data is None else encode(data))
    return Answer(reply=saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=error, stored=stored))


def system_error(code: str = "BROKEN", message: str = "", *, effect: bool = False) -> Answer:
    """A system error: the orchestrator cannot know whether there was an effect."""
    error = payload_pb2.Error(code=code, message=message)
    return Answer(reply=saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR, error=error), effect=effect)


def in_progress(poll_s: float | None = None) -> Answer:
    """Accepted; the outcome follows."""
    reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_IN_PROGRESS)
    if poll_s is not None:
        reply.poll_interval.FromMicroseconds(round(poll_s * 1_000_000))
    return Answer(reply=reply)


def status(code: grpc.StatusCode, details: str = "", *, effect: bool = False) -> Answer:
    """A gRPC status instead of a reply."""
    return Answer(code=code, details=details, effect=effect)


def raw(body: bytes, *, effect: bool = True) -> Answer:
    """These bytes instead of a response message."""
    return Answer(body=body, effect=effect)


def hang(*, effect: bool = False) -> Answer:
    """No answer, for ever."""
    return Answer(fault=Fault.HANG, effect=effect)


def die(*, effect: bool = False) -> Answer:
    """The participant breaks down before it answers; `ScriptedParticipant.start` brings it back."""
    return Answer(fault=Fault.DIE, effect=effect)


UNAVAILABLE = status(grpc.StatusCode.UNAVAILABLE, "away")
"""Of a participant that is away for a while."""
