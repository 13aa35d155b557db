"""What follows from the outcome of one attempt: a verdict, another attempt, or none."""

from __future__ import annotations

from typing import assert_never

from amends_server.engine.commands import NotSent, Refused, Settle, Succeeded, Unknown
from amends_server.engine.definition import Kind
from amends_server.engine.draft import Draft
from amends_server.engine.due import step_deadline
from amends_server.engine.events import (
    AttemptWithdrawn,
    CompensationFailed,
    CompensationRetryScheduled,
    CompensationSucceeded,
    LateReply,
    LateReplyRecorded,
    StepGivenUp,
    StepRefused,
    StepRetryScheduled,
    StepSucceeded,
)
from amends_server.engine.graph import Node
from amends_server.engine.key import call_key
from amends_server.engine.payload import Error
from amends_server.engine.policy import Time
from amends_server.engine.state import State, StepState

LOST = Error("ORCHESTRATOR_RESTARTED", "The orchestrator restarted before an answer came.")


def settle(draft: Draft, command: Settle) -> None:
    """Record how an attempt ended. A reply that nobody waits for changes nothing; after the end it is not recorded."""
    if draft.state.final:
        return
    step = draft.state.step(command.step)
    call = step.compensation if command.compensation else step.action
    if not call.open or call.attempts != command.attempt:
        if (reply := _late_reply(command)) is not None:
            draft.add(LateReplyRecorded(draft.now, command.step, command.attempt, command.compensation, reply))
        return
    node = draft.state.graph.node(command.step)
    if command.compensation:
        _settle_compensation(draft, node, command)
    else:
        _settle_action(draft, node, command)
    draft.advance(node.after)


def _late_reply(command: Settle) -> LateReply | None:
    match command.verdict:
        case Succeeded():
            return LateReply.SUCCEEDED
        case Refused():
            return LateReply.REFUSED
        case Unknown():
            return LateReply.UNKNOWN
        case NotSent():
            return None
        case _:
            assert_never(command.verdict)


def _settle_action(draft: Draft, node: Node, command: Settle) -> None:
    verdict, step_id, attempt = command.verdict, command.step, command.attempt
    match verdict:
        case Succeeded():
            draft.add(StepSucceeded(draft.now, step_id, attempt, verdict.output, verdict.related_services))
        case Refused() if _is_proof(node, draft.state.step(step_id), verdict):
            refused = StepRefused(draft.now, step_id, attempt, verdict.error, verdict.stored, verdict.related_services)
            draft.add(refused)
            draft.failed(node, verdict.error)
        case Refused():
            draft.add(StepGivenUp(draft.now, step_id, attempt, verdict.error))
        case Unknown():
            _settle_unknown(
                draft, node, verdict, draft.now + node.retry.delay_us(_key(draft.state, node, False), attempt)
            )
        case NotSent():
            _settle_not_sent(draft, node, verdict)
        case _:
            assert_never(verdict)


def _settle_not_sent(draft: Draft, node: Node, verdict: NotSent) -> None:
    """Have the attempt made later, unless the saga turned back or the step's deadline passed while it waited."""
    call = draft.state.steps[node.index].action
    draft.add(AttemptWithdrawn(draft.now, node.step.id, call.attempts, False, verdict.error))
    deadline = step_deadline(node, call)
    if draft.state.going_back or (deadline is not None and deadline <= draft.now):
        draft.add(StepGivenUp(draft.now, node.step.id, call.attempts, verdict.error))
        draft.failed(node, verdict.error)


def _is_proof(node: Node, step: StepState, verdict: Refused) -> bool:
    """A refused pivot is refused for sure only if no earlier attempt can have had an effect: else it stays unknown."""
    return node.step.kind is not Kind.PIVOT or verdict.stored or step.unproven == 1


def _settle_unknown(draft: Draft, node: Node, verdict: Unknown, due_time: Time) -> None:
    call = draft.state.steps[node.index].action
    deadline = step_deadline(node, call)
    in_time = deadline is None or due_time < deadline
    again = verdict.again and in_time and node.retry.allows(call.attempts - call.forgiven)
    if again and not draft.state.going_back:
        draft.add(StepRetryScheduled(draft.now, node.step.id, call.attempts, verdict.error, due_time))
        return
    draft.add(StepGivenUp(draft.now, node.step.id, call.attempts, verdict.error))
    draft.failed(node, verdict.error)


def _settle_compensation(draft: Draft, node: Node, command: Settle) -> None:
    verdict, step_id, attempt = command.verdict, command.step, command.attempt
    match verdict:
        case Succeeded():
            draft.add(CompensationSucceeded(draft.now, step_id, attempt))
        case Refused():
            draft.add(CompensationFailed(draft.now, step_id, attempt, verdict.error))
        case Unknown():
            delay_us = node.compensation_retry.delay_us(_key(draft.state, node, True), attempt)
            _settle_compensation_unknown(draft, node, verdict, draft.now + delay_us)
        case NotSent():
            draft.add(AttemptWithdrawn(draft.now, step_id, attempt, True, verdict.error))
        case _:
            assert_never(verdict)


def _settle_compensation_unknown(draft: Draft, node: Node, verdict: Unknown, due_time: Time) -> None:
    call = draft.state.steps[node.index].compensation
    if verdict.again and node.compensation_retry.allows(call.attempts - call.forgiven):
        draft.add(CompensationRetryScheduled(draft.now, node.step.id, call.attempts, verdict.error, due_time))
    else:
        draft.add(CompensationFailed(draft.now, node.step.id, call.attempts, verdict.error))


def _key(state: State, node: Node, compensation: bool) -> str:
    return call_key(state.started.namespace, state.started.saga_id, node.step.id, compensation=compensation)


def recover(draft: Draft) -> None:
    """Settle attempts that were lost: they are unknown, they count, and the next one is due at once."""
    for node in draft.state.graph.nodes:
        step = draft.state.steps[node.index]
        if step.action.open:
            _settle_unknown(draft, node, Unknown(LOST), draft.now)
        if step.compensation.open:
            _settle_compensation_unknown(draft, node, Unknown(LOST), draft.now)
    if not draft.state.final:
        draft.wake()
