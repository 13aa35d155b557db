"""The exceptions of the SDK: what a caller, a saga's author or a participant can meet or raise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from amends.views import Cause, SagaView, StepView


class AmendsError(Exception):
    """The base of all exceptions that this package raises.

    `saga_id` is the id of the saga whose start did not succeed, also where it was made up; starting it again under this
    id is harmless. It is empty in any other case.
    """

    saga_id: str = ""

    def __reduce__(self) -> tuple[Callable[..., AmendsError], tuple[object, ...]]:
        # By itself an exception is made again of its `args` alone, of which most of these cannot be made.
        return _made_again, (type(self), self.args, vars(self))


def _made_again(kind: type[AmendsError], args: tuple[object, ...], attributes: Mapping[str, object]) -> AmendsError:
    """A copy of an exception, in this process or in another one."""
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class PayloadError(AmendsError):
    """Data cannot be turned into a payload, or a payload is not what its type says. The message names the path."""


class Refused(AmendsError):
    """Raised by a handler: a business error. This attempt had no effect, and trying again would not help.

    `code` is stable and machine-readable, in UPPER_SNAKE_CASE; `message` is a sentence for people; `data` is anything
    that can be a payload. `stored` says that the participant keeps this verdict under the key of the call and gives it
    again for each attempt. `again` says that another attempt may do better: a barrier, which keeps refusals by itself,
    then keeps nothing, so that a rule `on(…).retry()` has the handler called again.

    :raises ValueError: both `stored` and `again`: a verdict that is kept is given to every attempt.
    """

    def __init__(
        self, code: str, message: str = "", *, data: object = None, stored: bool = False, again: bool = False
    ) -> None:
        if stored and again:
            raise ValueError("Refused(stored=True, again=True): a verdict that is kept cannot change; leave one out")
        # A verdict must not get lost for the type of its text: exceptions and enums are what people put there.
        self.code = _text(code)
        self.message = _text(message)
        self.data = data
        self.stored = bool(stored)
        self.again = bool(again)
        super().__init__(f"{self.code}: {self.message}" if self.message else self.code)


def _text(value: object) -> str:
    """A text that a message can hold, which has no halves of characters."""
    text = str(value.value if isinstance(value, Enum) else value)
    return text.encode("utf-8", "backslashreplace").decode()


class BarrierError(AmendsError):
    """The barrier of a participant cannot tell what became of a call, or cannot keep it. The call may come again."""


class InProgress(AmendsError):
    """Raised by the handler of an action: the work goes on, and its outcome follows.

    The handler is called again after `poll`, with the same key, until it has an outcome; a plain number is in seconds.
    Without `poll` the step waits until somebody calls `Client.complete` or `Client.refuse` with `call.completion`.

    :raises ValueError: `poll` is not longer than nothing.
    """

    def __init__(self, *, poll: float | timedelta | None = None) -> None:
        super().__init__("the work is in progress")
        self.poll_s = poll.total_seconds() if isinstance(poll, timedelta) else poll
        if self.poll_s is not None and not 0 < self.poll_s < math.inf:
            raise ValueError(f"InProgress(poll={poll!r}): must be longer than nothing, in seconds")


class DefinitionError(AmendsError):
    """A saga is written in a way that cannot work."""


class ReferenceUseError(DefinitionError, TypeError):
    """A reference was used as if it were the value that it stands for, for example in an `if` or with `+`."""


class UnknownFieldError(DefinitionError, AttributeError):
    """A reference was asked for a field that its type does not have."""


class SagaError(AmendsError):
    """A saga has no result. `saga` is how it stands, `cause` why it turned back, if it did; `steps` tells of each."""

    def __init__(self, message: str, saga: SagaView) -> None:
        super().__init__(message)
        self.saga = saga

    @property
    def cause(self) -> Cause | None:
        return self.saga.cause

    @property
    def steps(self) -> tuple[StepView, ...]:
        return self.saga.steps


class Compensated(SagaError):
    """The saga turned back, and all that may have happened was undone. Final."""


class Stuck(SagaError):
    """The saga needs an operator. Not final: it goes on after `Client.retry` or `Client.resolve`."""


class Failed(SagaError):
    """An operator gave the saga up with something left undone. Final."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request. `field` is a path, for example `definition.steps[2].after[0]`."""

    field: str
    description: str


class RpcError(AmendsError):
    """A call to the orchestrator did not succeed. Which subclass is raised follows from the gRPC status alone.

    `reason` is the stable reason of the server's ErrorInfo, for example `SAGA_NOT_FOUND`; it is empty if the server did
    not answer. `metadata` belongs to it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidArgument(RpcError):
    """The request is wrong in itself. `violations` names the fields."""


class NotFound(RpcError):
    """There is no such saga, definition or participant."""


class AlreadyExists(RpcError):
    """There is one of that id with other content."""


class FailedPrecondition(RpcError):
    """What is asked for does not fit the state that it is asked in."""


class Aborted(RpcError):
    """Something else changed at the same time. The whole of it may be tried again."""


class OutOfRange(RpcError):
    """The events that are asked for are not kept any more."""


class ResourceExhausted(RpcError):
    """A limit was met: the size of a payload, a quota, a queue."""


class PermissionDenied(RpcError):
    """The caller may not do this."""


class Unauthenticated(RpcError):
    """The caller did not prove who it is."""


class Unavailable(RpcError):
    """The orchestrator cannot be reached or cannot serve now. Whether the request took effect is unknown."""


class DeadlineExceeded(RpcError):
    """The answer did not come in time. Whether the request took effect is unknown."""


class Cancelled(RpcError):
    """The call was broken off. Whether the request took effect is unknown."""


class Unimplemented(RpcError):
    """This orchestrator does not serve the call."""


class Internal(RpcError):
    """The orchestrator has a defect."""


class DataLoss(RpcError):
    """The orchestrator lost data, or sent what cannot be right."""


class Unknown(RpcError):
    """The answer cannot be understood. Whether the request took effect is unknown."""
