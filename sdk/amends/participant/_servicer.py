"""The gRPC service of a participant: finds the handler of a call, and tells whoever calls what is not there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from amends.participant._handlers import Handler
from amends.participant._session import Refusal, Session, refused
from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_SECONDS, _NANOS = range(-62_135_596_800, 253_402_300_800), range(1_000_000_000)
"""What a Timestamp may hold: the years 1 to 9999."""

_NAME_LENGTH_MAX, _NAMED_MAX = 128, 20
"""A status's text goes into trailers, which hold little: with more in it, the caller would not get the status."""

log = logging.getLogger("amends.participant")


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
    """ParticipantService for one participant."""

    def __init__(self, participant: Serving) -> None:
        self._participant = participant
        self._actions = participant.actions  # a view: what is added later is there, too
        self._sessions: set[Session] = set()

    def drain(self) -> None:
        """Have sessions take no more calls, and end when those in flight are answered."""
        for session in self._sessions:
            session.drain()

    async def Execute(
        self, request: participant_pb2.ExecuteRequest, context: Context
    ) -> participant_pb2.ExecuteResponse:
        try:
            return participant_pb2.ExecuteResponse(reply=await self._execute(request))
        except Refusal as reason:
            await context.abort(reason.code, reason.message)

    async def Compensate(
        self, request: participant_pb2.CompensateRequest, context: Context
    ) -> participant_pb2.CompensateResponse:
        try:
            return participant_pb2.CompensateResponse(reply=await self._compensate(request))
        except Refusal as reason:
            await context.abort(reason.code, reason.message)

    async def Describe(
        self, request: participant_pb2.DescribeRequest, context: Context
    ) -> participant_pb2.DescribeResponse:
        return self._participant.describe()

    async def Session(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[participant_pb2.SessionRequest], context: Context
    ) -> None:
        session = Session(context, self._answer)
        self._sessions.add(session)
        try:
            await session.run()
        except Refusal as reason:
            await context.abort(reason.code, reason.message)
        finally:
            self._sessions.discard(session)

    async def _answer(self, call: participant_pb2.SessionCall) -> participant_pb2.SessionResult:
        try:
            kind = call.WhichOneof("kind")
            if kind is None:
                raise self._not_taken(grpc.StatusCode.INVALID_ARGUMENT, "the call is of no known kind")
            reply = await (self._execute(call.execute) if kind == "execute" else self._compensate(call.compensate))
        except Refusal as reason:
            return refused(call.id, reason.code, reason.message)
        except Exception:  # handlers' exceptions are replies already, so this is a defect of ours
            log.exception("%s failed to answer a call", self._participant.name)
            return refused(call.id, grpc.StatusCode.INTERNAL, "the participant failed; its log says more")
        return participant_pb2.SessionResult(id=call.id, reply=reply)

    def _execute(self, request: participant_pb2.ExecuteRequest) -> Awaitable[saga_pb2.Reply]:
        return self._action(request.action, request.call, request.call.key).execute(request)

    def _compensate(self, request: participant_pb2.CompensateRequest) -> Awaitable[saga_pb2.Reply]:
        action = self._action(request.action, request.call, request.execute_key)
        if action.undo is None:
            raise self._not_taken(grpc.StatusCode.UNIMPLEMENTED, f"action {_short(request.action)} has no compensation")
        return action.compensate(action.undo, request)

    def _action(self, name: str, call: participant_pb2.Call, execute_key: str) -> Served:
        if not call.key or not execute_key:  # an empty one would be one key for all calls: only the first has an effect
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the call has no idempotency key")
        if not (call.expire_time.seconds in _SECONDS and call.expire_time.nanos in _NANOS):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the call's expire_time is no time")
        action = self._actions.get(name)
        if action is None:
            known = ", ".join(sorted(self._actions)[:_NAMED_MAX]) or "none"
            message = f"there is no action {_short(name)}; known actions: {known}"
            raise self._not_taken(grpc.StatusCode.UNIMPLEMENTED, message)
        return action

    def _not_taken(self, code: grpc.StatusCode, message: str) -> Refusal:
        return Refusal(code, f"participant {self._participant.name!r}: {message}")


def _short(name: str) -> str:
    return repr(name[:_NAME_LENGTH_MAX])
