"""Handlers: what is read from their signatures, and how async and plain ones are run."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import typing
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any, TypeVar, cast

from amends.participant.call import Call

T = TypeVar("T")

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler and how many of the arguments it takes: it may leave out the last one, the call."""

    function: Callable[..., Any]
    arity: int
    is_async: bool

    async def run(self, pool: Executor, *arguments: object) -> object:
        """Run it: an async one here, a plain one in the pool. A plain one that has begun runs to its end."""
        if self.is_async:
            return await self.function(*arguments[: self.arity])
        result: object = await in_thread(pool, partial(self.function, *arguments[: self.arity]))
        return await cast(Awaitable[object], result) if inspect.isawaitable(result) else result


async def in_thread(pool: Executor, work: Callable[[], T]) -> T:
    """Run plain work in the pool. Once begun it runs to its end."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(_plainly, work))


def handler_of(function: Callable[..., object], *, arity_min: int, arity_max: int) -> Handler:
    """:raises TypeError: the function does not take as many arguments as a handler is given."""
    parameters = inspect.signature(function).parameters.values()
    by_place = [parameter for parameter in parameters if parameter.kind in _BY_PLACE]
    needed = sum(parameter.default is parameter.empty for parameter in by_place)
    taken = max(needed, min(len(by_place), arity_min))
    if taken == arity_max - 1 < len(by_place) and _takes_call(function, by_place[taken].name):
        taken = arity_max
    if not arity_min <= taken <= arity_max:
        raise TypeError(f"{_name(function)} takes {taken} arguments; a handler here gets {arity_min} to {arity_max}")
    return Handler(function, taken, _is_async(function))


def _takes_call(function: Callable[..., object], name: str) -> bool:
    """Whether an argument that has a default is for the call: others are the function's own."""
    hint = _hints(function, name).get(name)
    return Call in (hint, *typing.get_args(hint))


def checked_kind(handler: Handler, *, is_async: bool) -> Handler:
    """:raises TypeError: the handler is async and should be plain, or the other way round."""
    if handler.is_async != is_async:
        wanted = "async" if is_async else "plain"
        raise TypeError(f"{_name(handler.function)} must be {wanted}: its barrier is for {wanted} handlers")
    return handler


def input_and_output(function: Callable[..., object]) -> tuple[type[object], type[object]]:
    """The types of the first argument and of the result, from the annotations, with what `Annotated` says of them.

    :raises TypeError: one is missing, or names what is not to be found in the function's module.
    """
    first = next(iter(inspect.signature(function).parameters))
    hints, bare = _hints(function, first, "return", extras=True), _hints(function, first, "return")
    if first not in hints or "return" not in hints:
        raise TypeError(f"{_name(function)} must say the types of its argument {first!r} and of its result")
    kind, result = (hints[name] if _is_hashable(hints[name]) else bare[name] for name in (first, "return"))
    return kind, result


def _is_hashable(hint: object) -> bool:
    """Whether a type can be kept in mind with what `Annotated` adds; constraints of msgspec can."""
    try:
        hash(hint)
    except TypeError:
        return False
    return True


def _hints(function: Callable[..., object], *names: str, extras: bool = False) -> dict[str, type[object]]:
    # The annotations of an object that can be called are those of its `__call__`.
    annotated = function if inspect.isroutine(function) else type(function).__call__
    # Of the other arguments nobody needs to know the types: they may be names that only a type checker sees.
    stand_in = FunctionType((lambda: None).__code__, getattr(inspect.unwrap(annotated), "__globals__", {}))
    annotations = inspect.get_annotations(annotated)
    stand_in.__annotations__ = {name: annotations[name] for name in names if name in annotations}
    try:
        return typing.get_type_hints(stand_in, include_extras=extras)
    except NameError as error:
        raise TypeError(
            f"{_name(function)}: {error}; the types of a handler must be names of its module, not of a function in it"
        ) from None


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _plainly(work: Callable[[], T]) -> T:
    try:
        return work()
    except StopIteration as stop:  # a future cannot carry it: whoever waits would wait for ever
        raise RuntimeError("a handler raised StopIteration") from stop


def _name(function: Callable[..., object]) -> str:
    name: object = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__
