"""Refusals as gRPC statuses: one table, and one decorator that applies it to the methods of the services.

Each status carries google.rpc details: an ErrorInfo with a stable reason, the fields of a bad request, and when to try
again. What nobody expected is logged and answered INTERNAL, without its text, which may quote users' data.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from amends_server import errors
from amends_server.engine.checks.problem import InvalidDefinition
from amends_server.engine.commands import Rejected
from amends_server.errors import ServiceError, Violation
from amends_server.logs import stack_of
from amends_server.store import protocol as store
from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class PeerRefused(Exception):
    """What another orchestrator has refused, to be passed on as it is."""

    def __init__(self, code: grpc.StatusCode, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.code = code
        self.status = status


DOMAIN = "amends"
"""Of all reasons in ErrorInfo."""

RETRY_S = 1
"""When to try again what failed for a moment: long enough for a store to recover, short enough for people."""

# Clients refuse trailers above 8 KiB. The message goes there percent-encoded, up to three bytes for one, and again in
# the details, which go there in base64, four bytes for three. All of these together stay below 7 KiB.
MESSAGE_BYTES_MAX = 500
VIOLATIONS_BYTES_MAX = 2_500
_METADATA_BYTES_MAX = 200
"""Of each value in ErrorInfo.metadata and each field's path: names, not texts."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an exception is answered. `message` stands in for a text that was not written for callers."""

    code: grpc.StatusCode
    reason: str
    message: str = ""
    retry: bool = False


_C = grpc.StatusCode

REFUSALS: dict[type[BaseException], Refusal] = {
    InvalidDefinition: Refusal(_C.INVALID_ARGUMENT, "DEFINITION_INVALID"),
    Rejected: Refusal(_C.FAILED_PRECONDITION, "REJECTED"),
    errors.InvalidArgument: Refusal(_C.INVALID_ARGUMENT, "ARGUMENT_INVALID"),
    errors.RequestUnreadable: Refusal(_C.INVALID_ARGUMENT, "REQUEST_UNREADABLE"),
    errors.PayloadTooLarge: Refusal(_C.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE"),
    errors.SagaNotFound: Refusal(_C.NOT_FOUND, "SAGA_NOT_FOUND"),
    errors.SagaAlreadyExists: Refusal(_C.ALREADY_EXISTS, "SAGA_ALREADY_EXISTS"),
    errors.DefinitionNotFound: Refusal(_C.NOT_FOUND, "DEFINITION_NOT_FOUND"),
    errors.DefinitionInUse: Refusal(_C.FAILED_PRECONDITION, "DEFINITION_IN_USE"),
    errors.ParticipantNotFound: Refusal(_C.NOT_FOUND, "PARTICIPANT_NOT_FOUND"),
    errors.ParticipantInUse: Refusal(_C.FAILED_PRECONDITION, "PARTICIPANT_IN_USE"),
    errors.ParticipantFixed: Refusal(_C.FAILED_PRECONDITION, "PARTICIPANT_FIXED"),
    errors.AddressNotAllowed: Refusal(_C.PERMISSION_DENIED, "ADDRESS_NOT_ALLOWED"),
    errors.TokenInvalid: Refusal(_C.PERMISSION_DENIED, "TOKEN_INVALID"),
    errors.Overloaded: Refusal(_C.RESOURCE_EXHAUSTED, "OVERLOADED", retry=True),
    errors.ParticipantCrowded: Refusal(_C.RESOURCE_EXHAUSTED, "OVERLOADED", retry=True),
    errors.NotOwned: Refusal(_C.UNAVAILABLE, "NOT_OWNED", retry=True),
    errors.OwnerLost: Refusal(_C.UNAVAILABLE, "OWNER_LOST"),
    errors.ShuttingDown: Refusal(_C.UNAVAILABLE, "SHUTTING_DOWN", retry=True),
    errors.NotWaitedFor: Refusal(_C.ABORTED, "NOT_WAITED_FOR"),
    errors.EventsNotKept: Refusal(_C.OUT_OF_RANGE, "EVENTS_NOT_KEPT"),
    errors.SagaHalted: Refusal(
        _C.INTERNAL,
        "SAGA_HALTED",
        "The server cannot carry this saga on: look for it in its log, mend the cause, and restart the server.",
    ),
    errors.CorruptRecord: Refusal(_C.DATA_LOSS, "RECORD_CORRUPT"),
    store.NotFound: Refusal(_C.NOT_FOUND, "NOT_FOUND", "There is no such thing: check its name and namespace."),
    store.AlreadyExists: Refusal(
        _C.ALREADY_EXISTS, "ALREADY_EXISTS", "There is one of that name already: choose another name, or use that one."
    ),
    store.Conflict: Refusal(
        _C.ABORTED,
        "CONCURRENT_CHANGE",
        "Something else changed it at the same time: look at it and try again.",
        retry=True,
    ),
    store.Undefined: Refusal(
        _C.ABORTED,
        "CONCURRENT_CHANGE",
        "The definition was removed at the same time: register it again, and then start.",
        retry=True,
    ),
    store.Unwritable: Refusal(
        _C.INVALID_ARGUMENT,
        "UNWRITABLE",
        "The store cannot hold this: it is too large, or no valid text. Nothing was recorded; send less.",
    ),
    store.InUse: Refusal(_C.FAILED_PRECONDITION, "IN_USE", "Others need it: wait for their end, or remove them first."),
    store.StoreError: Refusal(
        _C.UNAVAILABLE,
        "STORE_UNAVAILABLE",
        "The store cannot be reached or is full: try again a little later.",
        retry=True,
    ),
}
"""The nearest class of an exception decides, so store.Unavailable is answered as StoreError is."""

_REJECTED_CODES = {"STEP_UNKNOWN": _C.NOT_FOUND, "OUTPUT_REFUSED": _C.INVALID_ARGUMENT}
"""Rejections that are about something else than the saga's state."""

_INTERNAL = Refusal(
    _C.INTERNAL,
    "INTERNAL",
    "Something broke inside the server: look for this saga or method in its log, then try again.",
)

log = structlog.stdlib.get_logger(__name__)

_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Method = TypeVar("_Method", bound=Callable[..., object])
_Unary = Callable[[_Servicer, _Request, "Context"], Awaitable[_Response]]
_Stream = Callable[[_Servicer, _Request, "Context"], AsyncGenerator[_Response, None]]


def to_status(error: BaseException, about: dict[str, str] | None = None) -> status_pb2.Status:
    """Return the google.rpc.Status of an exception. `about` is added to the metadata of its ErrorInfo."""
    if isinstance(error, PeerRefused):
        return error.status
    refusal = _refusal(error)
    message = refusal.message or str(error)
    details = [_info(refusal.reason, (about or {}) | _metadata(error)), *_bad_request(error)]
    if refusal.retry:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)))
    status = status_pb2.Status(code=code_number(refusal.code), message=_shorten(message, MESSAGE_BYTES_MAX))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason in a status's ErrorInfo, empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")


def code_number(code: grpc.StatusCode) -> int:
    """Return the number of a gRPC status code."""
    return code_pb2.Code.Value(code.name)


async def abort(context: Context, error: BaseException, about: dict[str, str] | None = None) -> NoReturn:
    """End a call with the status of an exception."""
    status = to_status(error, about)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(_refusal(error).code, status.message, trailers)
    raise AssertionError("abort returned")


@contextmanager
def naming_saga(key: SagaKey) -> Generator[None]:
    """Name the saga that is not there, where the store says only that something is not."""
    try:
        yield
    except store.NotFound:
        raise errors.SagaNotFound(key.namespace, key.saga_id) from None


def refusals(method: _Method) -> _Method:
    """Decorate a method of a servicer, unary or streaming: what it raises becomes a status with details."""
    anything: Any = method  # the signature is kept as it is: the generated base class names the arguments
    guarded: Any = _guard_stream(anything) if inspect.isasyncgenfunction(method) else _guard_unary(anything)
    return cast("_Method", guarded)


def _guard_unary(method: _Unary[_Servicer, _Request, _Response]) -> _Unary[_Servicer, _Request, _Response]:
    @functools.wraps(method)
    async def guarded(self: _Servicer, request: _Request, context: Context) -> _Response:
        try:
            return await method(self, request, context)
        except (Exception, asyncio.CancelledError) as error:
            await _answer(context, method.__name__, request, error)

    return guarded


def _guard_stream(method: _Stream[_Servicer, _Request, _Response]) -> _Stream[_Servicer, _Request, _Response]:
    @functools.wraps(method)
    async def guarded(self: _Servicer, request: _Request, context: Context) -> AsyncGenerator[_Response, None]:
        try:
            async with aclosing(method(self, request, context)) as responses:
                async for response in responses:
                    yield response
        except (Exception, asyncio.CancelledError) as error:
            await _answer(context, method.__name__, request, error)

    return guarded


async def _answer(context: Context, method: str, request: object, error: BaseException) -> NoReturn:
    """Abort the call, unless that is what the exception does already, or the caller is gone."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise error
        # Something that the handler waited for was cancelled. Passed on, it would leave the caller without an answer.
        error = errors.ShuttingDown()
    await abort(context, error, report(method, request, error))


def report(method: str, request: object, error: BaseException) -> dict[str, str]:
    """Log what an operator should know of an exception; return what its request was about."""
    about = {name: value for name in ("namespace", "saga_id") if (value := str(getattr(request, name, "")))}
    if _refusal(error) is _INTERNAL:
        log.error("request_broke", method=method, error=type(error).__name__, stack=stack_of(error), **about)
    elif isinstance(error, store.StoreError):
        log.warning("store_refused", method=method, error=type(error).__name__, message=str(error), **about)
    return about


def _refusal(error: BaseException) -> Refusal:
    if isinstance(error, PeerRefused):
        return Refusal(error.code, reason_of(error.status))
    refusal = next((REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS), _INTERNAL)
    if isinstance(error, Rejected):
        return Refusal(_REJECTED_CODES.get(error.reason, refusal.code), error.reason)
    return refusal


def _info(reason: str, metadata: dict[str, str]) -> error_details_pb2.ErrorInfo:
    short = {name: _shorten(value, _METADATA_BYTES_MAX) for name, value in metadata.items()}
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=short)


def _metadata(error: BaseException) -> dict[str, str]:
    return dict(error.metadata) if isinstance(error, ServiceError) else {}


def _bad_request(error: BaseException) -> Iterator[Message]:
    if isinstance(error, InvalidDefinition):
        yield _violations(Violation(p.field, f"{p.code}: {p.message}") for p in error.problems)
    elif isinstance(error, errors.InvalidArgument):
        yield _violations(error.violations)
    elif isinstance(error, Rejected) and error.field:
        yield _violations([Violation(error.field, str(error))])
    elif isinstance(error, errors.PayloadTooLarge):
        yield _violations([Violation(error.metadata["field"], str(error))])


def _violations(violations: Iterable[Violation]) -> error_details_pb2.BadRequest:
    """Return as many violations as fit; the last one then says how many more there are."""
    request = error_details_pb2.BadRequest()
    left_out = 0
    for violation in violations:
        field = _shorten(violation.field, _METADATA_BYTES_MAX)
        description = _shorten(violation.description, MESSAGE_BYTES_MAX)
        fits = request.ByteSize() + len(field.encode()) + len(description.encode()) <= VIOLATIONS_BYTES_MAX
        if fits and not left_out:
            request.field_violations.add(field=field, description=description)
        else:
            left_out += 1
    if left_out:
        request.field_violations.add(field="", description=f"There are {left_out} more; mend these first.")
    return request


def _shorten(text: str, bytes_max: int) -> str:
    data = text.encode()
    if len(data) <= bytes_max:
        return text
    return data[: bytes_max - len("…".encode())].decode(errors="ignore") + "…"
