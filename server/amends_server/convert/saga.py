"""Sagas as they are seen from outside: whole, from their state, or in lists, from their rows."""

from __future__ import annotations

from amends.v1 import saga_pb2 as pb
from amends_server.convert.cause import set_cause
from amends_server.convert.enums import RESOLUTION_TO_WIRE, SAGA_STATUS_TO_WIRE, STEP_STATUS_TO_WIRE
from amends_server.convert.payload import related_services_to_wire, set_error, set_payload
from amends_server.convert.times import set_time
from amends_server.engine.context import step_input
from amends_server.engine.due import next_time
from amends_server.engine.events import SagaCompleted
from amends_server.engine.graph import Node
from amends_server.engine.payload import Error, Json, Payload
from amends_server.engine.state import CallState, SagaStatus, State, StepState, StepStatus, StuckState
from amends_server.store.protocol import StoredSaga


def saga_to_wire(state: State, definition_version: int, to: pb.Saga | None = None) -> pb.Saga:
    """Return the whole view of a saga, steps and data included; written into `to` if that is given."""
    message = pb.Saga() if to is None else to
    _set_head(message, state, definition_version)
    if state.cause is not None:
        set_cause(message.cause, state.cause)
    if state.stuck is not None:
        _set_stuck(message.stuck, state, state.stuck)
    if state.started.input is not None:
        set_payload(message.input, state.started.input)
    output = saga_output(state)
    if output is not None:
        set_payload(message.output, output)
    if isinstance(state.ending, SagaCompleted) and state.ending.output_error is not None:
        set_error(message.output_error, state.ending.output_error)
    for node in state.graph.nodes:
        _set_step(message.steps.add(), state, node)
    return message


def result_to_wire(state: State, definition_version: int, to: pb.Saga) -> None:
    """Write what a client that waited for the end needs: of a completed saga the output, if that holds everything."""
    if state.status is not SagaStatus.COMPLETED or not _tells_all(state):
        saga_to_wire(state, definition_version, to)
        return
    _set_head(to, state, definition_version)
    output = saga_output(state)
    if output is not None:
        set_payload(to.output, output)


def _tells_all(state: State) -> bool:
    """Tell whether a completed saga's output leaves nothing out that its steps returned."""
    if state.graph.output is not None:
        return state.output is not None
    # A list, for a generator is one call more for each step of every saga.
    return all([step.output is None or isinstance(step.output, Json) for step in state.steps])


def stored_saga_to_wire(stored: StoredSaga) -> pb.Saga:
    """Return the view of a saga in lists, without steps and data."""
    key, birth, head = stored.key, stored.birth, stored.head
    message = pb.Saga(
        namespace=key.namespace,
        saga_id=key.saga_id,
        definition=birth.definition_name,
        definition_version=birth.definition_version,
        definition_digest=birth.definition_digest,
        status=SAGA_STATUS_TO_WIRE[head.status],
        paused=head.paused,
        labels=dict(birth.labels),
        sequence=head.sequence,
    )
    set_time(message.create_time, birth.create_time)
    set_time(message.update_time, head.update_time)
    if head.end_time is not None:
        set_time(message.end_time, head.end_time)
    if birth.deadline is not None:
        set_time(message.deadline_time, birth.deadline)
    if head.due_time is not None:
        set_time(message.due_time, head.due_time)
    return message


def stuck_saga_to_wire(stored: StoredSaga, state: State) -> pb.Saga:
    """Return the view in lists of a saga that is STUCK: with why, since when, and the steps that block it."""
    message = stored_saga_to_wire(stored)
    if state.stuck is None:  # not any more
        return message
    if state.cause is not None:
        set_cause(message.cause, state.cause)
    _set_stuck(message.stuck, state, state.stuck)
    for step in state.stuck.steps:
        blocking = message.steps.add()
        _set_step(blocking, state, state.graph.node(step))
        blocking.ClearField("input")
        blocking.ClearField("output")
    return message


def saga_output(state: State) -> Payload | None:
    """Return what a completed saga resulted in; None for any other, and where the template could not be filled.

    By default it is a JSON object of the outputs of the SUCCEEDED steps by their ids, null for a step without output;
    and of those steps that a rule for errors gave an output.
    Outputs that are not JSON are left out of it: they stand in the view of their steps.
    """
    if state.status is not SagaStatus.COMPLETED:
        return None
    if state.graph.output is not None:
        return state.output
    fields: list[str] = []
    for node, step in zip(state.graph.nodes, state.steps, strict=True):
        status, output = step.status, step.output
        if status is StepStatus.SUCCEEDED or (status is StepStatus.SKIPPED and output is not None):
            # Ids are plain words and texts were checked, so nothing needs to be parsed or escaped.
            if output is None:
                fields.append(f'"{node.step.id}":null')
            elif isinstance(output, Json):
                fields.append(f'"{node.step.id}":{output.text}')
    return Json("{" + ",".join(fields) + "}")


def _set_head(message: pb.Saga, state: State, definition_version: int) -> None:
    started = state.started
    message.namespace = started.namespace
    message.saga_id = started.saga_id
    message.definition = state.graph.definition.name
    message.definition_version = definition_version
    message.definition_digest = started.definition_digest
    message.status = SAGA_STATUS_TO_WIRE[state.status]
    message.paused = state.paused
    message.sequence = state.sequence
    if started.labels:
        message.labels.update(started.labels)
    set_time(message.create_time, started.time)
    set_time(message.update_time, state.update_time)
    if state.ending is not None:
        set_time(message.end_time, state.ending.time)
    if started.deadline is not None:
        set_time(message.deadline_time, started.deadline)
    due_time = next_time(state)
    if due_time is not None:
        set_time(message.due_time, due_time)


def _set_stuck(to: pb.Stuck, state: State, stuck: StuckState) -> None:
    to.steps.extend(stuck.steps)
    to.compensating = state.going_back
    to.count = state.stuck_count
    set_time(to.start_time, stuck.time)
    error = _blocking_error(state.step(stuck.steps[0])) if stuck.steps else None
    if error is not None:
        set_error(to.error, error)


def _blocking_error(step: StepState) -> Error | None:
    return step.compensation.error if step.status is StepStatus.COMPENSATION_FAILED else step.action.error


def _set_step(to: pb.Step, state: State, node: Node) -> None:
    step, definition = state.steps[node.index], node.step
    to.id = definition.id
    to.participant = definition.participant
    to.action = definition.action
    to.status = STEP_STATUS_TO_WIRE[step.status]
    to.compensation_not_needed = definition.compensation is not None and definition.compensation.not_needed
    to.related_services.extend(related_services_to_wire(step.related_services))
    _set_action(to, step.action)
    _set_compensation(to, step.compensation)
    called_with = step_input(state, node.index) if step.action.attempts else None
    if called_with is not None:
        set_payload(to.input, called_with)
    if step.output is not None:
        set_payload(to.output, step.output)
    if step.resolution is not None:
        to.resolution.resolution = RESOLUTION_TO_WIRE[step.resolution.resolution]
        to.resolution.reason = step.resolution.reason
        to.resolution.principal = step.resolution.principal


def _set_action(to: pb.Step, call: CallState) -> None:
    to.attempts = call.attempts
    if call.error is not None:
        set_error(to.error, call.error)
    if call.start_time is not None:
        set_time(to.start_time, call.start_time)
    if call.end_time is not None:
        set_time(to.end_time, call.end_time)
    if call.due_time is not None:
        set_time(to.due_time, call.due_time)


def _set_compensation(to: pb.Step, call: CallState) -> None:
    to.compensation_attempts = call.attempts
    if call.error is not None:
        set_error(to.compensation_error, call.error)
    if call.start_time is not None:
        set_time(to.compensation_start_time, call.start_time)
    if call.end_time is not None:
        set_time(to.compensation_end_time, call.end_time)
    if call.due_time is not None:
        set_time(to.due_time, call.due_time)
