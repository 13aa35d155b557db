"""Calls to participants as an orchestrator makes them, for the tests of their ledgers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from amends.payloads import encode
from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2

CALL_S = 20.0
SUCCESS = saga_pb2.REPLY_STATUS_SUCCESS
ERROR = saga_pb2.REPLY_STATUS_ERROR


@dataclass(frozen=True)
class Caller:
    """Calls one participant. The key of a compensation is that of its action with `/undo` after it."""

    stub: participant_pb2_grpc.ParticipantServiceStub

    async def execute(self, action: str, value: object, key: str, attempt: int = 1) -> saga_pb2.Reply:
        call = participant_pb2.Call(saga_id="s", step=action, key=key, attempt=attempt)
        request = participant_pb2.ExecuteRequest(call=call, action=action, input=encode(value))
        return (await self.stub.Execute(request, timeout=CALL_S)).reply

    async def compensate(self, action: str, value: object, key: str) -> saga_pb2.Reply:
        call = participant_pb2.Call(saga_id="s", step=action, key=f"{key}/undo", attempt=1)
        request = participant_pb2.CompensateRequest(call=call, action=action, execute_key=key, input=encode(value))
        return (await self.stub.Compensate(request, timeout=CALL_S)).reply


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Caller(participant_pb2_grpc.ParticipantServiceStub(channel))
