"""Requests that are no messages of their type: refused as such; grpc itself would answer UNKNOWN, as for a bug."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

Refuse = Callable[["Context"], Awaitable[NoReturn]]
"""Ends a call whose request cannot be read."""


UNREADABLE_TEXT = "the request cannot be read: it is no message of this method's type"


class Unreadable:
    """Stands for a request that cannot be read; those who call `context.read` themselves have to look for it."""


UNREADABLE = Unreadable()


class UnreadableRefused(grpc.aio.ServerInterceptor):
    """Has `refuse` end such calls before their servicer sees them. Meant to be the first of a server's interceptors."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        known = self._handlers.get(method)
        if known is None and (handler := await continuation(handler_call_details)) is not None:
            known = self._handlers[method] = self._refusing(handler)
        return known

    def _refusing(self, handler: Any) -> Handler:
        codecs = _or_unreadable(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._checked(handler.unary_unary), *codecs)
        if handler.unary_stream:
            check = self._checked_stream if inspect.isasyncgenfunction(handler.unary_stream) else self._checked
            return grpc.unary_stream_rpc_method_handler(check(handler.unary_stream), *codecs)
        if inspect.isasyncgenfunction(handler.stream_stream):
            return grpc.stream_stream_rpc_method_handler(self._checked_requests(handler.stream_stream), *codecs)
        return grpc.stream_stream_rpc_method_handler(handler.stream_stream, *codecs)

    def _checked(self, do: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def checked(request: Any, context: Context) -> Any:
            if request is UNREADABLE:
                await self._refuse(context)
            return await do(request, context)

        return checked

    def _checked_stream(
        self, do: Callable[[Any, Context], AsyncGenerator[Any, None]]
    ) -> Callable[[Any, Context], AsyncGenerator[Any, None]]:
        async def checked(request: Any, context: Context) -> AsyncGenerator[Any, None]:
            if request is UNREADABLE:
                await self._refuse(context)
            async with aclosing(do(request, context)) as responses:
                async for response in responses:
                    yield response

        return checked

    def _checked_requests(
        self, do: Callable[[AsyncIterator[Any], Context], AsyncGenerator[Any, None]]
    ) -> Callable[[AsyncIterator[Any], Context], AsyncGenerator[Any, None]]:
        async def readable(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any, None]:
            async for request in requests:
                if request is UNREADABLE:
                    await self._refuse(context)
                yield request

        async def checked(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any, None]:
            async with aclosing(do(readable(requests, context), context)) as responses:
                async for response in responses:
                    yield response

        return checked


async def refuse_unreadable(context: Context) -> NoReturn:
    """End a call as participants do."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE_TEXT)


def _or_unreadable(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return UNREADABLE

    return read
