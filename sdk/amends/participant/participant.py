"""Participants: the actions of a service, with their compensations, from plain functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from types import MappingProxyType, NoneType
from typing import Protocol, TypedDict, TypeVar, overload

from amends.action import Action, In, Out, checked_name
from amends.barrier import AsyncBarrier, AsyncOutsideBarrier, Barrier, Intent, OutsideBarrier
from amends.participant._handlers import checked_kind, handler_of, input_and_output
from amends.participant._served import GuardedAction, OutsideAction, Served, ServedAction
from amends.participant._servicer import Servicer
from amends.participant.call import Call
from amends.payloads import json_schema
from amends.v1 import participant_pb2, participant_pb2_grpc

# Enough to keep slow drivers of databases busy; what is above waits for a thread, not for memory.
PLAIN_HANDLERS_MAX = 32

Tx = TypeVar("Tx")
AnyBarrier = Barrier[Tx] | AsyncBarrier[Tx] | OutsideBarrier | AsyncOutsideBarrier
AsyncHandler = Callable[[In, Call], Awaitable[Out]] | Callable[[In], Awaitable[Out]]
PlainHandler = Callable[[In, Call], Out] | Callable[[In], Out]


class NamedAction(Protocol):
    """What `@participant.action(name=…)` decorates with."""

    @overload
    def __call__(self, handler: AsyncHandler[In, Out], /) -> ServedAction[In, Out]: ...
    @overload
    def __call__(self, handler: PlainHandler[In, Out], /) -> ServedAction[In, Out]: ...


class InTransaction(Protocol[Tx]):
    """What `@participant.action(barrier=…)` decorates plain functions with."""

    def __call__(self, handler: Callable[[In, Call, Tx], Out], /) -> GuardedAction[In, Out, Tx]: ...


class AsyncInTransaction(Protocol[Tx]):
    """What `@participant.action(barrier=…)` decorates async functions with."""

    def __call__(self, handler: Callable[[In, Call, Tx], Awaitable[Out]], /) -> GuardedAction[In, Out, Tx]: ...


class Outside(Protocol):
    """What `@participant.action(barrier=….outside())` decorates plain functions with."""

    def __call__(self, handler: Callable[[In, Call, Intent], Out], /) -> OutsideAction[In, Out]: ...


class AsyncOutside(Protocol):
    """What `@participant.action(barrier=….outside())` decorates async functions with."""

    def __call__(self, handler: Callable[[In, Call, Intent], Awaitable[Out]], /) -> OutsideAction[In, Out]: ...


class Participant:
    """A service that takes part in sagas: a name and its actions.

    :raises ValueError: the name is not a letter, then letters, digits, `.`, `_` or `-`, at most 128 characters.
    """

    def __init__(self, name: str) -> None:
        self.name = checked_name("a participant", name)
        self._actions: dict[str, Served[object, object]] = {}
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
    @overload
    def action(self, /, *, barrier: AsyncBarrier[Tx], name: str | None = None) -> AsyncInTransaction[Tx]: ...
    @overload
    def action(self, /, *, barrier: Barrier[Tx], name: str | None = None) -> InTransaction[Tx]: ...
    @overload
    def action(self, /, *, barrier: AsyncOutsideBarrier, name: str | None = None) -> AsyncOutside: ...
    @overload
    def action(self, /, *, barrier: OutsideBarrier, name: str | None = None) -> Outside: ...
    def action(
        self,
        handler: Callable[..., object] | None = None,
        /,
        *,
        name: str | None = None,
        barrier: AnyBarrier[Tx] | None = None,
    ) -> object:
        """Make the function an action, under its own name or the one given: `@p.action` or `@p.action(name="…")`.

        The function gets the input and the call, which it may leave out; its annotations say the types of the data. It
        may be async or plain; plain ones run in threads. `raise Refused(…)` is a business error, `raise InProgress(…)`
        says that the outcome follows; any other exception is a system error. Calls come at least once: the function
        makes each `call.key` effective once.

        With a `barrier` that is done for it. The function then gets the input, the call, and the transaction or the
        `Intent` of the barrier; it is async if the barrier is.

        :raises ValueError: there is an action of that name, or the name is none.
        :raises TypeError: the function's signature is not that of a handler.
        """

        def decorate(function: Callable[..., object]) -> Served[object, object]:
            return self._serve(function, function.__name__ if name is None else name, barrier)

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
    def actions(self) -> Mapping[str, Served[object, object]]:
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

    def _serve(
        self, function: Callable[..., object], name: str, barrier: AnyBarrier[Tx] | None
    ) -> Served[object, object]:
        if checked_name("an action", name) in self._actions:
            raise ValueError(f"participant {self.name!r} has an action {name!r} already")
        self._actions[name] = action = self._served(function, name, barrier)
        return action

    def _served(
        self, function: Callable[..., object], name: str, barrier: AnyBarrier[Tx] | None
    ) -> Served[object, object]:
        input_type, output_type = input_and_output(function)
        common = _Common(
            participant=self.name,
            name=name,
            input_type=input_type,
            output_type=output_type,
            has_compensation=False,
            description=(inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " "),
            pool=self._pool,
            undo_pool=self._undo_pool,
        )
        if barrier is None:
            return ServedAction(**common, handler=handler_of(function, arity_min=1, arity_max=2))
        handler = checked_kind(handler_of(function, arity_min=3, arity_max=3), is_async=barrier.is_async)
        if isinstance(barrier, OutsideBarrier | AsyncOutsideBarrier):
            return OutsideAction(**common, handler=handler, barrier=barrier)
        return GuardedAction(**common, handler=handler, barrier=barrier)


class _Common(TypedDict):
    """What all kinds of actions are made with."""

    participant: str
    name: str
    input_type: type[object]
    output_type: type[object]
    has_compensation: bool
    description: str
    pool: Executor
    undo_pool: Executor


def _description(action: Served[object, object]) -> participant_pb2.ActionDescription:
    return participant_pb2.ActionDescription(
        name=action.name,
        has_compensation=action.has_compensation,
        input_schema=json_schema(action.input_type),
        output_schema=json_schema(action.output_type),
        description=action.description,
    )
