"""What a handler is told of the call that it answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from amends.completions import Completion
from amends.errors import AmendsError, InProgress
from amends.payloads import decode
from amends.policies import Duration
from amends.v1 import participant_pb2, payload_pb2
from amends.views import Cause

T = TypeVar("T")

_NO_LABELS: Mapping[str, str] = MappingProxyType({})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An attempt of a call. `namespace`, `saga_id` and `step` say whose it is, `definition` and `version` of what kind.

    `key` is the same for all attempts of this call and different for any other: what makes an effect happen once.
    `execute_key` is the key of the action: `key` itself, and in a compensation the key of what is to be undone.
    `attempt` counts from 1; `epoch` is that of the orchestrator, and only grows. After `deadline` (aware; None: never)
    the orchestrator does not wait any more. `arguments`, `saga_input` and `cause` are given to compensations only.
    """

    namespace: str
    saga_id: str
    step: str
    key: str
    execute_key: str
    attempt: int
    epoch: int
    definition: str
    version: int
    labels: Mapping[str, str]
    deadline: dt.datetime | None
    traceparent: str
    cause: Cause | None = None
    arguments: payload_pb2.Payload = field(default_factory=payload_pb2.Payload)
    saga_input: payload_pb2.Payload = field(default_factory=payload_pb2.Payload)
    completion_token: str = field(default="", repr=False)
    _related: list[payload_pb2.RelatedService] = field(default_factory=list[payload_pb2.RelatedService], repr=False)

    def relate(self, name: str, reference: str = "") -> None:
        """Name another service that took part, and its record of it; the orchestrator keeps and shows both."""
        self._related.append(payload_pb2.RelatedService(name=name, reference=reference))

    @property
    def related_services(self) -> tuple[payload_pb2.RelatedService, ...]:
        return tuple(self._related)

    def begin_again(self) -> None:
        """Forget the related services: what the handler did was rolled back, or is about to begin. For the barrier."""
        self._related.clear()

    @property
    def completion(self) -> Completion:
        """What it takes to finish this step from anywhere, after an answer that it is in progress.

        :raises AmendsError: this call has none: it is a compensation.
        """
        if not self.completion_token:
            raise AmendsError(f"Step {self.step} cannot be finished from elsewhere: only actions have a completion.")
        return Completion(namespace=self.namespace, saga_id=self.saga_id, step=self.step, token=self.completion_token)

    def later(self, *, poll: Duration | None = None) -> NoReturn:
        """Answer that the work is in progress: raises `InProgress(poll=poll)`."""
        raise InProgress(poll=poll)

    def arguments_as(self, type: type[T]) -> T:
        """The compensation's own arguments, from the template in its definition.

        :raises PayloadError: they are not of the type.
        """
        return decode(self.arguments, type)

    def saga_input_as(self, type: type[T]) -> T:
        """The input of the saga.

        :raises PayloadError: it is not of the type.
        """
        return decode(self.saga_input, type)


def _datetime(time: Timestamp) -> dt.datetime:
    """`time.ToDatetime(dt.UTC)` in a fraction of the time: every call has one."""
    return _EPOCH + dt.timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)


def call_of_execute(request: participant_pb2.ExecuteRequest) -> Call:
    return _call(request.call, execute_key=request.call.key)


def call_of_compensate(request: participant_pb2.CompensateRequest) -> Call:
    return _call(
        request.call,
        execute_key=request.execute_key,
        cause=Cause.of(request.cause) if request.HasField("cause") else None,
        arguments=request.arguments,
        saga_input=request.saga_input,
    )


def _call(
    wire: participant_pb2.Call,
    *,
    execute_key: str,
    cause: Cause | None = None,
    arguments: payload_pb2.Payload | None = None,
    saga_input: payload_pb2.Payload | None = None,
) -> Call:
    return Call(
        namespace=wire.namespace,
        saga_id=wire.saga_id,
        step=wire.step,
        key=wire.key,
        execute_key=execute_key,
        attempt=wire.attempt,
        epoch=wire.epoch,
        definition=wire.definition,
        version=wire.definition_version,
        labels=MappingProxyType(dict(wire.labels)) if wire.labels else _NO_LABELS,
        deadline=_datetime(wire.expire_time) if wire.HasField("expire_time") else None,
        traceparent=wire.traceparent,
        cause=cause,
        arguments=arguments or payload_pb2.Payload(),
        saga_input=saga_input or payload_pb2.Payload(),
        completion_token=wire.completion_token,
    )
