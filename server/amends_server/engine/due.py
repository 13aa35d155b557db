"""What a saga owes the world: the calls that are open, and when to look at it again. Derived from the state alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from amends_server.engine.context import step_input, undone_input
from amends_server.engine.events import Cause, CompensationDispatched, Event, StepDispatched
from amends_server.engine.graph import Graph, Node
from amends_server.engine.key import call_key
from amends_server.engine.payload import Payload
from amends_server.engine.policy import Time
from amends_server.engine.state import CallState, SagaStatus, State
from amends_server.engine.value import dataclass


class OwedCall(NamedTuple):
    """An attempt whose intent is recorded and whose outcome is not."""

    node: int
    compensation: bool
    attempt: int


class Due(NamedTuple):
    """The calls that are owed now, and the time of the next retry or deadline; None if only an answer leads on."""

    calls: tuple[OwedCall, ...]
    next_time: Time | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOrder:
    """Everything that a call is made of.

    An attempt may take `timeout_us`, and must be over by `deadline` if there is one.
    """

    node: Node
    compensation: bool
    attempt: int
    key: str
    execute_key: str
    input: Payload | None
    output: Payload | None
    arguments: Payload | None
    saga_input: Payload | None
    cause: Cause | None
    timeout_us: int
    deadline: Time | None


def due(state: State) -> Due:
    """Return what is owed."""
    return Due(owed_calls(state), next_time(state))


def owed_calls(state: State) -> tuple[OwedCall, ...]:
    """Return the calls that are owed now."""
    calls: list[OwedCall] = []
    for i, step in enumerate(state.steps if state.active else ()):
        if step.action.open:
            calls.append(OwedCall(i, False, step.action.attempts))
        if step.compensation.open:
            calls.append(OwedCall(i, True, step.compensation.attempts))
    return tuple(calls)


def next_time(state: State) -> Time | None:
    """Return the time of the next retry or deadline; None if only an answer leads on."""
    of_saga = _next_of_saga(state)
    if not state.timed:
        return of_saga
    times = [] if of_saga is None else [of_saga]
    for i, step in enumerate(state.steps):
        if not step.timed:
            continue
        for call in (step.action, step.compensation):
            if call.due_time is not None and not state.paused:
                times.append(call.due_time)
        if step.action.waiting and (limit := _wait_limit(state, i)) is not None:
            times.append(limit)
    return min(times, default=None)


def dispatched(graph: Graph, events: Iterable[Event]) -> list[OwedCall]:
    """Return the calls that these events say are about to be made."""
    calls: list[OwedCall] = []
    for event in events:
        if isinstance(event, StepDispatched):
            calls.append(OwedCall(graph.index[event.step], False, event.attempt))
        elif isinstance(event, CompensationDispatched):
            calls.append(OwedCall(graph.index[event.step], True, event.attempt))
    return calls


def is_open(state: State, owed: OwedCall) -> bool:
    """Tell whether the outcome of a call is still waited for."""
    step = state.steps[owed.node]
    call = step.compensation if owed.compensation else step.action
    return call.open and call.attempts == owed.attempt


def order_call(state: State, owed: OwedCall) -> CallOrder:
    """Return the contents of a call that is owed."""
    node, step, started = state.graph.nodes[owed.node], state.steps[owed.node], state.started
    execute_key = call_key(started.namespace, started.saga_id, node.step.id, compensation=False)
    key = execute_key
    if owed.compensation:
        key = call_key(started.namespace, started.saga_id, node.step.id, compensation=True)
    return CallOrder(
        node=node,
        compensation=owed.compensation,
        attempt=owed.attempt,
        key=key,
        execute_key=execute_key,
        input=undone_input(state, owed.node) if owed.compensation else step_input(state, owed.node),
        output=step.output,
        arguments=step.arguments,
        saga_input=started.input,
        cause=state.cause,
        timeout_us=node.compensation_timeout_us if owed.compensation else node.step.timeout_us,
        deadline=None if owed.compensation else step_deadline(node, step.action),
    )


def step_deadline(node: Node, call: CallState) -> Time | None:
    """Return when all attempts of an action must be over, if its step has a deadline and was dispatched."""
    if node.step.deadline_us is None or call.start_time is None:
        return None
    return (call.forgiven_time or call.start_time) + node.step.deadline_us


def _wait_limit(state: State, index: int) -> Time | None:
    """Return when waiting for a participant that is at work ends."""
    call = state.steps[index].action
    if call.open or state.paused:
        return None
    return step_deadline(state.graph.nodes[index], call)


def _next_of_saga(state: State) -> Time | None:
    """Return the next time that matters to the saga as a whole."""
    deadline = _deadline(state)
    if state.status is not SagaStatus.PENDING or state.paused:
        return deadline
    # Only the start of one that was held back is recorded: it is due, so that whoever looks for what is due finds it.
    start_time = state.started.start_time or state.started.time
    return start_time if deadline is None else min(start_time, deadline)


def _deadline(state: State) -> Time | None:
    """The saga's deadline, as long as it can turn the saga back."""
    if state.started.deadline is None or state.status not in _BEFORE_THE_TURN or state.committed:
        return None
    return state.started.deadline


_BEFORE_THE_TURN = frozenset({SagaStatus.PENDING, SagaStatus.RUNNING})
