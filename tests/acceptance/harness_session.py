"""Sessions of a scripted participant: the same answers as over single calls, over one stream, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from amends.v1 import participant_pb2
from tests.acceptance.harness_answers import Answer

CALLS_MAX = 1_000  # more than any test has in flight

Context = grpc.aio.ServicerContext[Any, Any]
Answering = Callable[[participant_pb2.SessionCall], Awaitable[Answer]]
"""Answers a call, in the participant's own time."""


class ScriptedSession:
    """One stream, from its opening until the orchestrator goes. A result that is unreadable spoils the whole stream."""

    def __init__(self, context: Context, answering: Answering) -> None:
        self._context = context
        self._answering = answering
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        try:
            await self._write(participant_pb2.SessionResponse(call_credits=CALLS_MAX).SerializeToString())
            while isinstance(body := await self._context.read(), bytes):
                for call in participant_pb2.SessionRequest.FromString(body).calls:
                    task = asyncio.create_task(self._answer(call))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _answer(self, call: participant_pb2.SessionCall) -> None:
        answer = await self._answering(call)
        result = participant_pb2.SessionResult(id=call.id, reply=answer.reply, status_message=answer.details)
        if answer.body is not None:
            try:
                result.MergeFrom(_result_of(answer.body))
            except DecodeError:
                await self._write(answer.body)
                return
        if answer.code is not None:
            result.status_code = answer.code.value[0]
        await self._write(participant_pb2.SessionResponse(results=[result], call_credits=1).SerializeToString())

    async def _write(self, body: bytes) -> None:
        async with self._writing:
            await self._context.write(body)


def _result_of(body: bytes) -> participant_pb2.SessionResult:
    """What the response to a single call would be as a result.

    :raises DecodeError: if it is no response.
    """
    response = participant_pb2.ExecuteResponse.FromString(body)
    return participant_pb2.SessionResult(reply=response.reply if response.HasField("reply") else None)
