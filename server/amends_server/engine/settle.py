"""What follows from the outcome of one attempt. That of an action is in `action`."""

from __future__ import annotations

from typing import assert_never

from amends_server.engine.action import late_reply, settle_action, settle_unknown
from amends_server.engine.commands import InProgress, NotSent, Refused, Settle, Succeeded, Unknown
from amends_server.engine.draft import Draft
from amends_server.engine.events import (
    AttemptWithdrawn,
    CompensationFailed,
    CompensationRetryScheduled,
    CompensationSucceeded,
    SagaRestored,
)
from amends_server.engine.graph import Node
from amends_server.engine.history import full_error, is_full, put_off_us, retry_delay_us
from amends_server.engine.key import call_key
from amends_server.engine.payload import Error
from amends_server.engine.policy import Time

LOST = Error("ORCHESTRATOR_RESTARTED", "The orchestrator restarted before an answer came.")


def settle(draft: Draft, command: Settle) -> None:
    """Record how an attempt ended. A reply that nobody waits for changes nothing; after the end it is not recorded."""
    if draft.state.final:
        return
    step = draft.state.step(command.step)
    call = step.compensation if command.compensation else step.action
    if not call.open or call.attempts != command.attempt:
        if (reply := late_reply(command)) is not None:
            draft.add_late(command.step, command.attempt, command.compensation, reply)
        return
    node = draft.state.graph.node(command.step)
    if command.compensation:
        _settle_compensation(draft, node, command)
    else:
        settle_action(draft, node, command)
    draft.advance(node.after)


def _settle_compensation(draft: Draft, node: Node, command: Settle) -> None:
    verdict, step_id, attempt = command.verdict, command.step, command.attempt
    match verdict:
        case Succeeded():
            draft.add(CompensationSucceeded(draft.now, step_id, attempt))
        case Refused():
            draft.add(CompensationFailed(draft.now, step_id, attempt, verdict.error))
        case Unknown():
            _settle_compensation_unknown(draft, node, verdict, draft.now + _delay_us(draft, node))
        case InProgress():
            _settle_compensation_unknown(draft, node, _still_undoing(node), draft.now + _delay_us(draft, node))
        case NotSent() if is_full(draft.state):
            draft.add(CompensationFailed(draft.now, step_id, attempt, full_error(draft.state, verdict.error)))
        case NotSent():
            call = draft.state.steps[node.index].compensation
            delay_us = put_off_us(verdict.delay_us, call, draft.now)
            due_time = draft.now + delay_us if delay_us else None
            draft.add(AttemptWithdrawn(draft.now, step_id, attempt, True, verdict.error, due_time))
        case _:
            assert_never(verdict)


def _still_undoing(node: Node) -> Unknown:
    """A compensation in progress is asked again by its policy: an undo that takes for ever needs an operator."""
    return Unknown(Error("IN_PROGRESS", "The participant is still undoing; it is asked again.", node.step.participant))


def _settle_compensation_unknown(draft: Draft, node: Node, verdict: Unknown, due_time: Time) -> None:
    call = draft.state.steps[node.index].compensation
    if not (verdict.again and node.compensation_retry.allows(call.attempts - call.forgiven)):
        draft.add(CompensationFailed(draft.now, node.step.id, call.attempts, verdict.error))
    elif is_full(draft.state):
        error = full_error(draft.state, verdict.error)
        draft.add(CompensationFailed(draft.now, node.step.id, call.attempts, error))
    else:
        draft.add(CompensationRetryScheduled(draft.now, node.step.id, call.attempts, verdict.error, due_time))


def _delay_us(draft: Draft, node: Node) -> int:
    call, started = draft.state.steps[node.index].compensation, draft.state.started
    key = call_key(started.namespace, started.saga_id, node.step.id, compensation=True)
    return retry_delay_us(node.compensation_retry, key, call, draft.now, call.attempts - call.forgiven)


def recover(draft: Draft, *, restored: bool) -> None:
    """Settle attempts that were lost: they are unknown, they count, and the next one is due at once."""
    if restored and not draft.state.final:
        draft.add(SagaRestored(draft.now))
    for node in draft.state.graph.nodes:
        step = draft.state.steps[node.index]
        if step.action.open:
            settle_unknown(draft, node, step.action.attempts, Unknown(LOST), at_once=True)
        if step.compensation.open:
            _settle_compensation_unknown(draft, node, Unknown(LOST), draft.now)
    if not draft.state.final:
        draft.wake()
