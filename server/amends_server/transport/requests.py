"""The requests that participants get. For one key they differ in nothing but the attempt, its time and the epoch."""

from __future__ import annotations

from dataclasses import dataclass

from amends.v1 import participant_pb2
from amends_server.convert.cause import set_cause
from amends_server.convert.payload import set_payload
from amends_server.convert.times import set_time
from amends_server.engine.due import CallOrder
from amends_server.engine.events import SagaStarted
from amends_server.engine.policy import Time


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose call it is: the saga's start, its definition, and the epoch of the orchestrator that sends."""

    started: SagaStarted
    definition_name: str
    definition_version: int
    epoch: int


def execute_request(order: CallOrder, origin: Origin, expire_time: Time) -> participant_pb2.ExecuteRequest:
    """Return the request for an action."""
    request = participant_pb2.ExecuteRequest(action=order.node.step.action)
    _write_call(request.call, order, origin, expire_time)
    if order.input is not None:
        set_payload(request.input, order.input)
    return request


def compensate_request(order: CallOrder, origin: Origin, expire_time: Time) -> participant_pb2.CompensateRequest:
    """Return the request for a compensation."""
    request = participant_pb2.CompensateRequest(action=order.node.step.action, execute_key=order.execute_key)
    _write_call(request.call, order, origin, expire_time)
    for field, payload in (
        (request.input, order.input),
        (request.output, order.output),
        (request.arguments, order.arguments),
        (request.saga_input, order.saga_input),
    ):
        if payload is not None:
            set_payload(field, payload)
    if order.cause is not None:
        set_cause(request.cause, order.cause)
    return request


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
    call.labels.update(started.labels)
    set_time(call.expire_time, expire_time)
    call.traceparent = started.traceparent
