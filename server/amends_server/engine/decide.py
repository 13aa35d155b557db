"""What follows from a command: `decide` answers with events and changes nothing.

Every decision goes the same way: first the events of the command itself, then all that follows from them at once: what
is ready or due is dispatched, the saga ends, or it is stuck. So the outcome of one step and the intent to dispatch the
next are in one append to the journal. The rules behind it stand in `evolve`.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from amends_server.engine.action import complete
from amends_server.engine.commands import (
    Cancel,
    Command,
    Complete,
    Fail,
    Pause,
    Recover,
    Rejected,
    Resolve,
    Resume,
    Retry,
    Settle,
    Wake,
)
from amends_server.engine.definition import Kind
from amends_server.engine.draft import Draft
from amends_server.engine.events import (
    Cancelled,
    Event,
    Resolution,
    SagaFailed,
    SagaPaused,
    SagaResumed,
    SagaRetried,
    SagaStarted,
    StepResolved,
    TurnedByOperator,
)
from amends_server.engine.evolve import begin
from amends_server.engine.graph import Graph, Node
from amends_server.engine.history import takes_repairs
from amends_server.engine.payload import Payload
from amends_server.engine.policy import Time
from amends_server.engine.rejections import (
    Ways,
    final,
    not_stuck,
    pivot_dispatched,
    resolution_not_allowed,
    step_unknown,
)
from amends_server.engine.settle import recover, settle
from amends_server.engine.state import BLOCKED, SagaStatus, State, StepStatus


class Decision(NamedTuple):
    """The events that follow, and the state after them, which is their fold."""

    events: list[Event]
    state: State


def start(graph: Graph, started: SagaStarted, *, hold: bool = False) -> Decision:
    """Begin a saga: its first event and its first dispatches; with `hold`, Recover makes up for those."""
    draft = Draft(begin(graph, started), started.time, hold=hold)
    draft.events.append(started)
    draft.go_forward(graph.roots)
    return Decision(draft.events, draft.state)


def decide(state: State, command: Command, now: Time, *, hold: bool = False) -> Decision:
    """Answer a command. With `hold`, outcomes are recorded and nothing is dispatched; Wake or Recover makes up for it.

    :raises Rejected: if the saga's state does not allow it.
    """
    draft = Draft(state, now, hold=hold)
    match command:
        case Settle():
            settle(draft, command)
        case Complete():
            complete(draft, command)
        case Wake():
            draft.wake()
        case Recover():
            recover(draft, restored=command.restored)
        case Cancel():
            _cancel(draft, command)
        case Pause():
            _pause(draft, command)
        case Resume():
            _resume(draft, command)
        case Retry():
            _retry(draft, command)
        case Resolve():
            _resolve(draft, command)
        case Fail():
            _fail(draft, command)
        case _:
            assert_never(command)
    return Decision(draft.events, draft.state)


def _cancel(draft: Draft, command: Cancel) -> None:
    state = draft.state
    if state.status is SagaStatus.COMPLETED:
        raise Rejected("SAGA_COMPLETED", "The saga is completed: start another one that makes up for it.")
    if state.status is SagaStatus.FAILED:
        raise Rejected("SAGA_FAILED", "An operator gave the saga up: look at its steps to see what is left.")
    if state.going_back:
        return
    if state.committed:
        raise Rejected("PIVOT_DISPATCHED", pivot_dispatched(state, _ways(state)))
    draft.turn_back(Cancelled(command.reason, command.principal))
    draft.advance(())


def _pause(draft: Draft, command: Pause) -> None:
    _reject_final(draft.state)
    if not draft.state.paused:
        _reject_full(draft.state)
        draft.add(SagaPaused(draft.now, command.reason, command.principal))


def _resume(draft: Draft, command: Resume) -> None:
    _reject_final(draft.state)
    if draft.state.paused:
        draft.add(SagaResumed(draft.now, command.reason, command.principal))
        draft.wake()


def _retry(draft: Draft, command: Retry) -> None:
    _reject_final(draft.state)
    waits = any(s.action.rests or s.compensation.rests for s in draft.state.steps)
    if draft.state.status is not SagaStatus.STUCK and not waits:
        raise Rejected("NOTHING_TO_RETRY", "The saga is not stuck and waits for no retry: watch it, or cancel it.")
    _reject_full(draft.state)
    draft.add(SagaRetried(draft.now, command.reason, command.principal))
    draft.wake()


def _resolve(draft: Draft, command: Resolve) -> None:
    _reject_final(draft.state)
    if command.step not in draft.state.graph.index:
        raise step_unknown(command.step)
    step = draft.state.step(command.step)
    if step.action.open or step.compensation.open:
        raise Rejected("CALL_IN_FLIGHT", f"A call of step `{command.step}` is in flight: wait for its outcome.")
    allowed = resolutions(draft.state, command.step)
    if command.resolution not in allowed:
        message = resolution_not_allowed(draft.state, command.step, command.resolution, _ways(draft.state))
        raise Rejected("RESOLUTION_NOT_ALLOWED", message)
    if command.resolution is Resolution.SUCCEEDED:
        _check_output(draft.state.graph.node(command.step), command.output)
    draft.add(
        StepResolved(draft.now, command.step, command.resolution, command.output, command.reason, command.principal)
    )
    if command.resolution is Resolution.COMPENSATED and not draft.state.going_back:
        draft.turn_back(TurnedByOperator(command.reason, command.principal))
    draft.advance(range(len(draft.state.steps)))


def _check_output(node: Node, output: Payload | None) -> None:
    """Hold an output that an operator gives to what others may rely on."""
    violation = node.output_schema.breach(output) if node.output_schema is not None else None
    if violation is not None:
        message = (
            f"The output does not meet the schema of step `{node.step.id}`: {violation.message}. Give one that does, or"
            " resolve the step otherwise."
        )
        raise Rejected("OUTPUT_REFUSED", message, violation.at("output"))


def resolutions(state: State, step_id: str) -> frozenset[Resolution]:
    """Return what an operator may say of a step: something if it waits for a retry or ended otherwise than wished."""
    if state.final or step_id not in state.graph.index:
        return frozenset()
    node, step = state.graph.node(step_id), state.step(step_id)
    if state.going_back:
        if step.status not in (StepStatus.COMPENSATION_FAILED, StepStatus.COMPENSATING):
            return frozenset()
        return frozenset({Resolution.COMPENSATED} if step.passed_over else {Resolution.SKIPPED, Resolution.COMPENSATED})
    if step.status not in BLOCKED and not step.action.active:
        return frozenset()
    if node.step.kind is Kind.RETRIABLE:
        return frozenset({Resolution.SKIPPED, Resolution.SUCCEEDED})
    if node.step.owes_compensation and not step.action.attempts:  # its input was never made, and the undoing needs it
        return frozenset({Resolution.SKIPPED, Resolution.COMPENSATED})
    return frozenset(Resolution)


def _ways(state: State) -> Ways:
    """Return the steps that an operator can resolve now, and as what."""
    nodes = zip(state.graph.nodes, state.steps, strict=True)
    idle = [node.step.id for node, step in nodes if not (step.action.open or step.compensation.open)]
    return {step_id: allowed for step_id in idle if (allowed := resolutions(state, step_id))}


def _fail(draft: Draft, command: Fail) -> None:
    _reject_final(draft.state)
    if draft.state.status is not SagaStatus.STUCK:
        raise Rejected("SAGA_NOT_STUCK", not_stuck(draft.state, _ways(draft.state)))
    draft.add(SagaFailed(draft.now, command.reason, command.principal))


def _reject_full(state: State) -> None:
    if not takes_repairs(state):
        message = (
            f"The saga has {state.sequence} events, as many as it may: resolve its steps, or give it up once STUCK."
        )
        raise Rejected("HISTORY_FULL", message)


def _reject_final(state: State) -> None:
    if state.final:
        raise Rejected("SAGA_FINAL", final(state))
