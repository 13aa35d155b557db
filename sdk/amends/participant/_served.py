"""Actions together with their code: how a call becomes a handler's work, and that work a reply."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar, cast, overload

import grpc

from amends._tasks import is_cancelled
from amends.action import Action, In, Out
from amends.barrier import Intent
from amends.barrier._barriers import Guard
from amends.barrier._database import at_once
from amends.barrier._digest import digest_of
from amends.barrier._rule import KeyTaken, Subject
from amends.errors import InProgress, PayloadError, Refused
from amends.participant._handlers import Handler, checked_kind, handler_of, in_thread
from amends.participant._replies import failure, failure_of, in_progress, refusal, success
from amends.participant._session import Refusal
from amends.participant.call import Call, call_of_compensate, call_of_execute
from amends.payloads import decode
from amends.v1 import participant_pb2, payload_pb2, saga_pb2

T = TypeVar("T")
Tx = TypeVar("Tx")
Undone = TypeVar("Undone", bound=Awaitable[None] | None)


@dataclass(slots=True, kw_only=True, eq=False)
class Served(Action[In, Out], ABC):
    """An action that has code here: answers the calls for it."""

    description: str
    pool: Executor
    undo_pool: Executor  # of its own: what is to be undone must not wait for what hangs
    handler: Handler
    undo: Handler | None = None

    async def execute(self, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
        """Answer a call for this action.

        :raises Refusal: its key was used with another input.
        """
        call = call_of_execute(request)
        try:
            return await self._execute(self._read(request.input), call, request.input)
        except BaseException as error:
            return self._reply_to(error, call)

    async def compensate(self, undo: Handler, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply:
        """Answer a call to undo this action.

        :raises Refusal: its key was used with another input.
        """
        call = call_of_compensate(request)
        try:
            return await self._compensate(undo, request, call)
        except BaseException as error:
            return self._reply_to(error, call)

    @abstractmethod
    async def _execute(self, value: In, call: Call, input: payload_pb2.Payload) -> saga_pb2.Reply: ...

    @abstractmethod
    async def _compensate(
        self, undo: Handler, request: participant_pb2.CompensateRequest, call: Call
    ) -> saga_pb2.Reply: ...

    def _read(self, input: payload_pb2.Payload) -> In:
        """:raises Refused: it is not of the type. Code of the type may raise anything else, as a handler may."""
        try:
            return decode(input, self.input_type)
        except PayloadError as error:
            raise Refused("INVALID_INPUT", str(error)) from None

    def _set_undo(self, undo: Handler) -> None:
        if self.has_compensation:
            raise ValueError(f"action {self.name!r} of {self.participant!r} has a compensation already")
        self.undo = undo
        self.has_compensation = True

    def _reply_to(self, error: BaseException, call: Call) -> saga_pb2.Reply:
        """Answer with what a handler raised; also SystemExit, for a handler must not end the participant."""
        if isinstance(error, Refused):
            return refusal(error, self.participant, call)
        if isinstance(error, InProgress):
            return in_progress(error, call)
        if isinstance(error, KeyTaken):  # no reply says it: it is no refusal, and to ask again is pointless
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, str(error)) from None
        if isinstance(error, _InvalidInput):  # of the caller: nothing has failed here
            return failure("INVALID_INPUT", str(error), self.participant, call)
        if isinstance(error, asyncio.CancelledError) and is_cancelled():  # nobody waits for an answer any more
            raise error
        return failure_of(error, self.participant, call)


@dataclass(slots=True, kw_only=True, eq=False)
class ServedAction(Served[In, Out]):
    """An action together with its code, which itself makes each `call.key` effective once."""

    @overload
    def compensation(
        self, handler: Callable[[In, Out | None, Call], Undone], /
    ) -> Callable[[In, Out | None, Call], Undone]: ...
    @overload
    def compensation(self, handler: Callable[[In, Out | None], Undone], /) -> Callable[[In, Out | None], Undone]: ...
    def compensation(self, handler: Callable[..., object], /) -> Callable[..., object]:
        """Have the function undo this action; it stays the function that it is.

        It gets the input of the action, its output (None if the action is not known to have succeeded) and the call,
        which it may leave out. When it returns, the action has no effect, now and for ever, also if it never had one.

        :raises ValueError: the action has a compensation already.
        :raises TypeError: the function takes another number of arguments.
        """
        self._set_undo(handler_of(handler, arity_min=2, arity_max=3))
        return handler

    async def _execute(self, value: In, call: Call, input: payload_pb2.Payload) -> saga_pb2.Reply:
        return success(await self.handler.run(self.pool, value, call), self.output_type, call)

    async def _compensate(
        self, undo: Handler, request: participant_pb2.CompensateRequest, call: Call
    ) -> saga_pb2.Reply:
        value = _to_undo(request.input, self.input_type)
        done = _to_undo(request.output, self.output_type) if request.HasField("output") else None
        return success(await undo.run(self.undo_pool, value, done, call), object, call)


@dataclass(slots=True, kw_only=True, eq=False)
class _Guarded(Served[In, Out], Generic[In, Out, Tx]):
    """An action whose calls go through a barrier."""

    barrier: Guard[Tx]

    async def _execute(self, value: In, call: Call, input: payload_pb2.Payload) -> saga_pb2.Reply:
        subject = Subject(call.key, digest_of(self.name, input))

        async def effect(tx: Tx) -> saga_pb2.Reply:
            call.begin_again()
            return success(await _called(self.handler, value, call, tx), self.output_type, call)

        def refuse(refused: Refused) -> saga_pb2.Reply:
            return refusal(refused, self.participant, call)

        return await self._run(self.pool, lambda: self.barrier.execute(subject, effect, refuse))

    async def _compensate(
        self, undo: Handler, request: participant_pb2.CompensateRequest, call: Call
    ) -> saga_pb2.Reply:
        subject = Subject(call.execute_key, digest_of(self.name, request.input))
        known = request.HasField("output")

        async def undone(tx: Tx, reply: saga_pb2.Reply | None) -> saga_pb2.Reply:
            call.begin_again()
            value = _to_undo(request.input, self.input_type)
            # What was completed from elsewhere has no reply here, and an output all the same.
            kept = reply.output if reply is not None else request.output if known else None
            output = None if kept is None else _to_undo(kept, self.output_type)
            return success(await _called(undo, value, output, call, tx), object, call)

        return await self._run(self.undo_pool, lambda: self.barrier.compensate(subject, undone, known=known))

    async def _run(
        self, pool: Executor, work: Callable[[], Coroutine[object, object, saga_pb2.Reply]]
    ) -> saga_pb2.Reply:
        if self.barrier.is_async:
            return await work()
        return await in_thread(pool, lambda: at_once(work()))

    def _undo_by(self, handler: Callable[..., object]) -> None:
        self._set_undo(checked_kind(handler_of(handler, arity_min=4, arity_max=4), is_async=self.barrier.is_async))


@dataclass(slots=True, kw_only=True, eq=False)
class GuardedAction(_Guarded[In, Out, Tx]):
    """An action together with its code, which works in the transaction of a barrier."""

    def compensation(self, handler: Callable[[In, Out, Call, Tx], Undone], /) -> Callable[[In, Out, Call, Tx], Undone]:
        """Have the function undo this action; it stays the function that it is.

        It gets the input of the action, its output as it was kept, the call and the open transaction. It is called only
        if there is something to undo, and is effective once.

        :raises ValueError: the action has a compensation already.
        :raises TypeError: the function takes another number of arguments, or is async where the barrier is plain.
        """
        self._undo_by(handler)
        return handler


@dataclass(slots=True, kw_only=True, eq=False)
class OutsideAction(_Guarded[In, Out, Intent]):
    """An action together with its code, whose effect is outside the database of its barrier."""

    def compensation(
        self, handler: Callable[[In, Out | None, Call, Intent], Undone], /
    ) -> Callable[[In, Out | None, Call, Intent], Undone]:
        """Have the function undo this action; it stays the function that it is.

        It gets the input of the action, its output, the call and the intent. Without an output nobody knows whether the
        action had its effect: find out by `call.execute_key`, and undo what there is. An undoing that is `repeated` was
        begun before, and nobody knows how that ended.

        :raises ValueError: the action has a compensation already.
        :raises TypeError: the function takes another number of arguments, or is async where the barrier is plain.
        """
        self._undo_by(handler)
        return handler


class _InvalidInput(PayloadError):
    """What is to be undone cannot be read: there may be something to undo, once the types are right again."""


def _to_undo(payload: payload_pb2.Payload, kind: type[T]) -> T:
    try:
        return decode(payload, kind)
    except PayloadError as error:
        raise _InvalidInput(str(error)) from None


async def _called(handler: Handler, *arguments: object) -> object:
    result = handler.function(*arguments)
    return await cast(Awaitable[object], result) if handler.is_async else result
