"""The requests that participants get. For one key they differ in nothing but the attempt, its token, time and epoch."""

from __future__ import annotations

from amends.v1 import participant_pb2
from amends_server.convert.cause import set_cause
from amends_server.convert.payload import set_payload
from amends_server.convert.times import set_time
from amends_server.engine.due import CallOrder
from amends_server.engine.events import SagaStarted
from amends_server.engine.policy import Time
from amends_server.engine.value import dataclass
from amends_server.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose call it is: the saga's start, its definition, and the epoch of the orchestrator that sends."""

    started: SagaStarted
    definition_name: str
    definition_version: int
    epoch: int
    tokens: Tokens | None = None
    """Makes what a participant needs to complete a step by itself; None: it cannot."""


def execute_request(order: CallOrder, origin: Origin, expire_time: Time) -> participant_pb2.ExecuteRequest:
    """Return the request for an action."""
    request = participant_pb2.ExecuteRequest()
    write_execute(request, order, origin, expire_time)
    return request


def compensate_request(order: CallOrder, origin: Origin, expire_time: Time) -> participant_pb2.CompensateRequest:
    """Return the request for a compensation."""
    request = participant_pb2.CompensateRequest()
    write_compensate(request, order, origin, expire_time)
    return request


def write_execute(to: participant_pb2.ExecuteRequest, order: CallOrder, origin: Origin, expire_time: Time) -> None:
    """Write the request for an action into a message that is there already."""
    to.action = order.node.step.action
    _write_call(to.call, order, origin, expire_time)
    if origin.tokens is not None:
        to.call.completion_token = origin.tokens.issue(order.key, origin.started.time, order.attempt)
    if order.input is not None:
        set_payload(to.input, order.input)


def write_compensate(
    to: participant_pb2.CompensateRequest, order: CallOrder, origin: Origin, expire_time: Time
) -> None:
    """Write the request for a compensation into a message that is there already."""
    to.action = order.node.step.action
    to.execute_key = order.execute_key
    _write_call(to.call, order, origin, expire_time)
    if order.input is not None:
        set_payload(to.input, order.input)
    if order.output is not None:
        set_payload(to.output, order.output)
    if order.arguments is not None:
        set_payload(to.arguments, order.arguments)
    if order.saga_input is not None:
        set_payload(to.saga_input, order.saga_input)
    if order.cause is not None:
        set_cause(to.cause, order.cause)


def _write_call(call: participant_pb2.Call, order: CallOrder, origin: Origin, expire_time: Time) -> None:
    started = origin.started
    call.namespace = started.namespace
    call.saga_id = started.saga_id
    call.step = order.node.step.id
    call.key = order.key
    call.attempt = order.attempt
    call.epoch = origin.epoch
    call.definition = origin.definition_name
    call.definition_version = origin.definition_version
    if started.labels:
        call.labels.update(started.labels)
    set_time(call.expire_time, expire_time)
    call.traceparent = started.traceparent
