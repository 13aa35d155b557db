"""Participants: the actions of a service, with their compensations, from plain functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Protocol, TypeVar, overload

from amends._handlers import Handler, handler_of, input_and_output
from amends._replies import failure, failure_of, in_progress, refusal, success
from amends._servicer import Servicer
from amends._tasks import is_cancelled
from amends.action import Action, In, Out, checked_name
from amends.call import Call, call_of_compensate, call_of_execute
from amends.errors import InProgress, PayloadError, Refused
from amends.payloads import decode, json_schema
from amends.v1 import participant_pb2, participant_pb2_grpc, saga_pb2

# Enough to keep slow drivers of databases busy; what is above waits for a thread, not for memory.
PLAIN_HANDLERS_MAX = 32

Undone = TypeVar("Undone", bound=Awaitable[None] | None)
AsyncHandler = Callable[[In, Call], Awaitable[Out]] | Callable[[In], Awaitable[Out]]
PlainHandler = Callable[[In, Call], Out] | Callable[[In], Out]


@dataclass(slots=True, kw_only=True, eq=False)
class ServedAction(Action[In, Out]):
    """An action together with its code."""

    description: str
    pool: Executor
    undo_pool: Executor  # of its own: what is to be undone must not wait for what hangs
    handler: Handler
    undo: Handler | None = None

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
        if self.has_compensation:
            raise ValueError(f"action {self.name!r} of {self.participant!r} has a compensation already")
        self.undo = handler_of(handler, arity_min=2, arity_max=3)
        self.has_compensation = True
        return handler

    async def execute(self, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
        """Answer a call for this action."""
        call = call_of_execute(request)
        try:
            value = decode(request.input, self.input_type)
        except PayloadError as error:
            return refusal(Refused("INVALID_INPUT", str(error)), self.participant, call)
        return await self._reply(call, self.output_type, self.handler.run(self.pool, value, call))

    async def compensate(self, undo: Handler, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply:
        """Answer a call to undo this action."""
        call = call_of_compensate(request)
        try:
            value = decode(request.input, self.input_type)
            done = decode(request.output, self.output_type) if request.HasField("output") else None
        except PayloadError as error:  # no refusal: there may be something to undo, once the types are right again
            return failure("INVALID_INPUT", str(error), self.participant, call)
        return await self._reply(call, object, undo.run(self.undo_pool, value, done, call))

    async def _reply(self, call: Call, output_type: object, work: Coroutine[object, object, object]) -> saga_pb2.Reply:
        try:
            return success(await work, output_type, call)
        except Refused as refused:
            return refusal(refused, self.participant, call)
        except InProgress as later:
            return in_progress(later, call)
        except BaseException as error:  # also SystemExit: a handler must not end the participant
            if isinstance(error, asyncio.CancelledError) and is_cancelled():  # nobody waits for an answer any more
                raise
            return failure_of(error, self.participant, call)


class NamedAction(Protocol):
    """What `@participant.action(name=…)` decorates with."""

    @overload
    def __call__(self, handler: AsyncHandler[In, Out], /) -> ServedAction[In, Out]: ...
    @overload
    def __call__(self, handler: PlainHandler[In, Out], /) -> ServedAction[In, Out]: ...


class Participant:
    """A service that takes part in sagas: a name and its actions.

    :raises ValueError: the name is not a letter, then letters, digits, `.`, `_` or `-`, at most 128 characters.
    """

    def __init__(self, name: str) -> None:
        self.name = checked_name("a participant", name)
        self._actions: dict[str, ServedAction[object, object]] = {}
        self._pool = ThreadPoolExecutor(PLAIN_HANDLERS_MAX, thread_name_prefix=f"amends-{name}")
        self._undo_pool = ThreadPoolExecutor(PLAIN_HANDLERS_MAX, thread_name_prefix=f"amends-{name}-undo")

    def __repr__(self) -> str:
        return f"Participant({self.name!r}, actions=[{', '.join(self._actions)}])"

    @overload
    def action(self, handler: AsyncHandler[In, Out], /) -> ServedAction[In, Out]: ...
    @overload
    def action(self, handler: PlainHandler[In, Out], /) -> ServedAction[In, Out]: ...
    @overload
    def action(self, /, *, name: str) -> NamedAction: ...
    def action(self, handler: Callable[..., object] | None = None, /, *, name: str | None = None) -> object:
        """Make the function an action, under its own name or the one given: `@p.action` or `@p.action(name="…")`.

        The function gets the input and the call, which it may leave out; its annotations say the types of the data. It
        may be async or plain; plain ones run in threads. `raise Refused(…)` is a business error, `raise InProgress(…)`
        says that the outcome follows; any other exception is a system error. Calls come at least once: the function
        makes each `call.key` effective once.

        :raises ValueError: there is an action of that name, or the name is none.
        :raises TypeError: the function's signature is not that of a handler.
        """

        def decorate(function: Callable[..., object]) -> ServedAction[object, object]:
            return self._serve(function, function.__name__ if name is None else name)

        return decorate if handler is None else decorate(handler)

    @overload
    def declare(self, name: str, input: type[In], *, compensation: bool = False) -> Action[In, None]: ...
    @overload
    def declare(
        self, name: str, input: type[In], output: type[Out], *, compensation: bool = False
    ) -> Action[In, Out]: ...
    def declare(
        self, name: str, input: type[In], output: type[object] = NoneType, *, compensation: bool = False
    ) -> object:
        """Describe an action of a participant whose code is elsewhere, so that sagas can use it.

        It has no output if none is given.

        :raises ValueError: the name is none.
        """
        return Action(
            participant=self.name,
            name=checked_name("an action", name),
            input_type=input,
            output_type=output,
            has_compensation=compensation,
        )

    @property
    def actions(self) -> Mapping[str, ServedAction[object, object]]:
        """The actions that have code here, by name."""
        return MappingProxyType(self._actions)

    def describe(self) -> participant_pb2.DescribeResponse:
        """The actions that have code here, as a definition can be checked against them."""
        return participant_pb2.DescribeResponse(
            participant=self.name, actions=[_description(action) for action in self._actions.values()]
        )

    def servicer(self) -> participant_pb2_grpc.ParticipantServiceServicer:
        """The gRPC service, for a `grpc.aio` server of one's own."""
        return Servicer(self)

    def _serve(self, function: Callable[..., object], name: str) -> ServedAction[object, object]:
        if checked_name("an action", name) in self._actions:
            raise ValueError(f"participant {self.name!r} has an action {name!r} already")
        input_type, output_type = input_and_output(function)
        action = ServedAction(
            participant=self.name,
            name=name,
            input_type=input_type,
            output_type=output_type,
            has_compensation=False,
            description=(inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " "),
            pool=self._pool,
            undo_pool=self._undo_pool,
            handler=handler_of(function, arity_min=1, arity_max=2),
        )
        self._actions[name] = action
        return action


def _description(action: ServedAction[object, object]) -> participant_pb2.ActionDescription:
    return participant_pb2.ActionDescription(
        name=action.name,
        has_compensation=action.has_compensation,
        input_schema=json_schema(action.input_type),
        output_schema=json_schema(action.output_type),
        description=action.description,
    )
