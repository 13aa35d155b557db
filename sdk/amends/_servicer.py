"""The gRPC service of a participant: finds the handler of a call, and tells whoever calls what is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc

from amends._handlers import Handler
from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Served(Protocol):
    """What the service needs of an action."""

    @property
    def undo(self) -> Handler | None: ...
    async def execute(self, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply: ...
    async def compensate(self, undo: Handler, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply: ...


class Serving(Protocol):
    """What the service needs of a participant."""

    name: str

    @property
    def actions(self) -> Mapping[str, Served]: ...
    def describe(self) -> participant_pb2.DescribeResponse: ...


class Servicer(participant_pb2_grpc.ParticipantServiceServicer):
    """ParticipantService for one participant. `Session` is not served: orchestrators fall back to single calls."""

    def __init__(self, participant: Serving) -> None:
        self._participant = participant

    async def Execute(
        self, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        action = await self._action(request.action, request.call.key, context)
        return participant_pb2.ExecuteResponse(reply=await action.execute(request))

    async def Compensate(
        self, request: participant_pb2.CompensateRequest, context: Context
    ) -> participant_pb2.CompensateResponse:
        action = await self._action(request.action, request.call.key and request.execute_key, context)
        undo = action.undo
        if undo is None:
            await self._unimplemented(f"action {request.action!r} has no compensation", context)
        return participant_pb2.CompensateResponse(reply=await action.compensate(undo, request))

    async def Describe(
        self, request: participant_pb2.DescribeRequest, context: Context
    ) -> participant_pb2.DescribeResponse:
        return self._participant.describe()

    async def Session(
        self, request_iterator: AsyncIterator[participant_pb2.SessionRequest], context: Context
    ) -> AsyncIterator[participant_pb2.SessionResponse]:
        await self._unimplemented("sessions are not served; use Execute and Compensate", context)
        yield participant_pb2.SessionResponse()

    async def _action(self, name: str, key: str, context: Context) -> Served:
        if not key:  # an empty key would be one key for all calls, and only the first would have an effect
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no idempotency key")
        action = self._participant.actions.get(name)
        if action is None:
            known = ", ".join(sorted(self._participant.actions)) or "none"
            await self._unimplemented(f"there is no action {name!r}; known actions: {known}", context)
        return action

    async def _unimplemented(self, message: str, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"participant {self._participant.name!r}: {message}")
