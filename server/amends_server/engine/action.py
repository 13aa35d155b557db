"""What follows from the outcome of an action: a verdict, another attempt, waiting, or a rule that handles an error."""

from __future__ import annotations

from typing import assert_never

from amends_server.engine.calls import resume
from amends_server.engine.commands import (
    Command,
    Complete,
    InProgress,
    NotSent,
    Refused,
    Rejected,
    Settle,
    Succeeded,
    Unknown,
)
from amends_server.engine.context import fill, values_of
from amends_server.engine.data.jsonvalue import TemplateError
from amends_server.engine.definition import Kind, OnError
from amends_server.engine.draft import Draft
from amends_server.engine.due import step_deadline
from amends_server.engine.events import (
    AttemptWithdrawn,
    Event,
    LateReply,
    LateReplyRecorded,
    StepDeferred,
    StepErrorHandled,
    StepGivenUp,
    StepOutputRefused,
    StepRefused,
    StepRetryScheduled,
    StepSucceeded,
)
from amends_server.engine.graph import Node, Rule
from amends_server.engine.history import full_error, is_full, poll_delay_us, put_off_us, retry_delay_us
from amends_server.engine.key import call_key
from amends_server.engine.payload import Error, Payload
from amends_server.engine.policy import Time
from amends_server.engine.rejections import step_unknown
from amends_server.engine.state import UNDOING, State, StepState, StepStatus
from amends_server.engine.value import replace

CALL_IN_FLIGHT = "CALL_IN_FLIGHT"
"""Why an outcome that is brought has to wait a little."""

STILL_AT_WORK = Error("IN_PROGRESS", "The participant is still at work, and asks to be asked again.")

AT_WORK = Error("IN_PROGRESS", "The saga turned back while the participant was at work.")


def settle_action(draft: Draft, node: Node, command: Settle | Complete) -> None:
    """Record an outcome that is waited for."""
    verdict = command.verdict
    match verdict:
        case Succeeded():
            _settle_success(draft, node, command.attempt, verdict)
        case Refused():
            _settle_refusal(draft, node, command.attempt, verdict)
        case Unknown():
            settle_unknown(draft, node, command.attempt, verdict)
        case InProgress():
            _settle_waiting(draft, node, command.attempt, verdict)
        case NotSent():
            _settle_not_sent(draft, node, verdict)
        case _:
            assert_never(verdict)


def complete(draft: Draft, command: Complete) -> None:
    """Take an outcome from whoever holds a token. One that comes too late is recorded: see `raise_if_late`.

    :raises Rejected: if the saga's state does not allow it.
    """
    if command.step not in draft.state.graph.index:
        raise step_unknown(command.step)
    node, step = draft.state.graph.node(command.step), draft.state.step(command.step)
    if _is_repeated(step, command, restored=draft.state.restored):
        return
    if draft.state.final:
        raise _too_late(command.step)
    stale = isinstance(command.verdict, Refused) and command.attempt <= step.action.heard
    in_flight = step.action.active and not step.action.takes_word and not stale
    if in_flight or _is_to_be_asked_again(draft.state, step, command.attempt):
        raise Rejected(CALL_IN_FLIGHT, f"A call of step `{command.step}` is in flight or due: wait for its outcome.")
    if stale or not step.action.takes_word:
        draft.add_late(command.step, command.attempt, False, late_reply(command) or LateReply.UNKNOWN)
        if not draft.events:
            raise _too_late(command.step)
        return
    settle_action(draft, node, replace(command, attempt=min(command.attempt, step.action.attempts)))
    draft.advance(node.after)


def _is_to_be_asked_again(state: State, step: StepState, attempt: int) -> bool:
    """Tell whether a token is from a part of the journal that is lost, and the participant was not asked since.

    What was done then may have been undone, and this may be an old word that comes twice. So the participant is asked
    first. What it says then that it is at work on it may finish with any token, as it may behind a pivot that has
    succeeded, from where on nothing is undone.
    """
    if state.going_back:
        return False
    newer = attempt > step.action.attempts and not state.restored
    return step.status is StepStatus.PENDING or (newer and step.action.takes_word)


def raise_if_late(command: Command, events: list[Event]) -> None:
    """Answer an outcome that was recorded and came too late.

    :raises Rejected: if that is what the command was.
    """
    if isinstance(command, Complete) and any(isinstance(event, LateReplyRecorded) for event in events):
        raise _too_late(command.step)


def _too_late(step: str) -> Rejected:
    return Rejected("STEP_NOT_WAITING", f"Nobody waits for the outcome of step `{step}` any more: look at the saga.")


def late_reply(command: Settle | Complete) -> LateReply | None:
    """Return in a word what an outcome says; None if it is not a participant's."""
    match command.verdict:
        case Succeeded():
            return LateReply.SUCCEEDED
        case Refused():
            return LateReply.REFUSED
        case Unknown():
            return LateReply.UNKNOWN
        case InProgress():
            return LateReply.IN_PROGRESS
        case NotSent():
            return None
        case _:
            assert_never(command.verdict)


def _is_repeated(step: StepState, command: Complete, *, restored: bool) -> bool:
    """Tell whether the step stands as this outcome would have it stand, or has gone on from there."""
    call = step.action
    if command.attempt > call.attempts and not restored:
        return False
    heard = command.attempt <= call.heard
    match command.verdict:
        case Succeeded(output):
            refused = heard and call.heard_error is None and step.output is not None
            undone = step.status in UNDOING and step.error is None and step.resolution is None
            return (step.status is StepStatus.SUCCEEDED or undone or refused) and step.output == output
        case Refused(error):
            ended = not call.active and step.status in (StepStatus.FAILED, StepStatus.SKIPPED)
            return (heard and call.heard_error == error) or (ended and call.error == error)
        case Unknown():
            return command.attempt <= call.broken
        case _:
            assert_never(command.verdict)


def _settle_success(draft: Draft, node: Node, attempt: int, verdict: Succeeded) -> None:
    error = _violation(node, verdict.output) if node.output_schema is not None else None
    if error is None:
        draft.add(StepSucceeded(draft.now, node.step.id, attempt, verdict.output, verdict.related_services))
        return
    services = verdict.related_services
    draft.add(StepOutputRefused(draft.now, node.step.id, attempt, verdict.output, error, services))
    draft.failed(node, error)


def _violation(node: Node, output: Payload | None) -> Error | None:
    """Return what is wrong with an output, by the step's schema."""
    assert node.output_schema is not None, "only asked where there is a schema"
    violation = node.output_schema.breach(output)
    if violation is None:
        return None
    where = f"`{violation.at('output')}`" if violation.path else "The whole"
    message = f"The output of step `{node.step.id}` does not meet its schema. {where}: {violation.message}."
    return Error("OUTPUT_REFUSED", message, node.step.participant)


def _settle_refusal(draft: Draft, node: Node, attempt: int, verdict: Refused) -> None:
    rule, output, verdict = _handle(draft, node, verdict)
    step = draft.state.steps[node.index]
    proof = verdict.stored or step.unproven == step.action.at_stake
    if rule is OnError.RETRY and not verdict.stored:
        due_time = _next_attempt(draft, node, refused=True)
        if due_time is not None:
            draft.add(StepRetryScheduled(draft.now, node.step.id, attempt, verdict.error, due_time, refused=True))
            return
        verdict = replace(verdict, error=_last_error(draft, node, verdict.error, refused=True))
    if node.step.kind is Kind.PIVOT and not proof:  # an earlier attempt may have had its effect, so it stays unknown
        draft.add(StepGivenUp(draft.now, node.step.id, attempt, verdict.error))
        return
    draft.add(StepRefused(draft.now, node.step.id, attempt, verdict.error, verdict.stored, verdict.related_services))
    if rule is OnError.CONTINUE and proof:
        draft.add(StepErrorHandled(draft.now, node.step.id, output))
    else:
        draft.failed(node, verdict.error)


def _handle(draft: Draft, node: Node, verdict: Refused) -> tuple[OnError, Payload | None, Refused]:
    """Return what to do with a business error, and the output to go on with.

    A rule that cannot be told does nothing, and the error says so.
    """
    if not node.rules or draft.state.going_back or draft.state.restored:
        return OnError.COMPENSATE, None, verdict
    try:
        rule = _find_rule(draft, node, verdict.error)
        if rule is None:
            return OnError.COMPENSATE, None, verdict
        return rule.then, _output_of(draft, node, rule, verdict.error), verdict
    except TemplateError as problem:
        message = f"{verdict.error.message} The rules in on_error could not be followed: {problem}"
        return OnError.COMPENSATE, None, replace(verdict, error=replace(verdict.error, message=message))


def _output_of(draft: Draft, node: Node, rule: Rule, error: Error) -> Payload | None:
    """Return the output that a rule goes on with. One without a template gives none, as a step that is skipped."""
    if rule.output is None:
        return None
    output = fill(rule.output, draft.state, error, draft.making)
    refused = _violation(node, output) if node.output_schema is not None else None
    if refused is not None:
        raise TemplateError(refused.message)
    return output


def _find_rule(draft: Draft, node: Node, error: Error) -> Rule | None:
    values = values_of(draft.state, draft.making, error)
    for rule in node.rules:
        if (not rule.codes or error.code in rule.codes) and (rule.when is None or rule.when.holds(values)):
            return rule
    return None


def settle_unknown(draft: Draft, node: Node, attempt: int, verdict: Unknown, *, at_once: bool = False) -> None:
    """Record that an attempt ended without a verdict, and when the next one follows, if one does."""
    due_time = _next_attempt(draft, node, at_once=at_once) if verdict.again else None
    if due_time is not None:
        draft.add(StepRetryScheduled(draft.now, node.step.id, attempt, verdict.error, due_time))
        return
    _give_up(draft, node, _last_error(draft, node, verdict.error) if verdict.again else verdict.error)


def _last_error(draft: Draft, node: Node, error: Error, *, refused: bool = False) -> Error:
    """Return the error that a step ends with, which says so if its policy would have allowed another attempt."""
    ended = _would_go_on(draft, node, refused=refused) and is_full(draft.state)
    return full_error(draft.state, error) if ended else error


def _give_up(draft: Draft, node: Node, error: Error) -> None:
    draft.add(StepGivenUp(draft.now, node.step.id, draft.state.steps[node.index].action.attempts, error))
    draft.failed(node, error)


def _would_go_on(draft: Draft, node: Node, *, refused: bool) -> bool:
    """Tell whether the step's policy allows another attempt."""
    call = draft.state.steps[node.index].action
    return not draft.state.going_back and node.retry.allows(call.counted(refused=refused))


def _next_attempt(draft: Draft, node: Node, *, at_once: bool = False, refused: bool = False) -> Time | None:
    """Return when the next attempt is due by the step's policy; None if there is none."""
    call, started = draft.state.steps[node.index].action, draft.state.started
    if not _would_go_on(draft, node, refused=refused) or is_full(draft.state):
        return None
    key = call_key(started.namespace, started.saga_id, node.step.id, compensation=False)
    delay_us = 0 if at_once else retry_delay_us(node.retry, key, call, draft.now, call.counted(refused=refused))
    due_time = draft.now + delay_us
    deadline = _deadline(draft, node)
    return due_time if deadline is None or due_time < deadline else None


def _deadline(draft: Draft, node: Node) -> Time | None:
    """Return when all attempts of an action must be over, if a pause ended now."""
    call, pause_time = draft.state.steps[node.index].action, draft.state.pause_time
    return step_deadline(node, call if pause_time is None else resume(call, pause_time, draft.now))


def _settle_not_sent(draft: Draft, node: Node, verdict: NotSent) -> None:
    """Have the attempt made later, unless the saga turned back or the step's deadline passed while it waited."""
    call = draft.state.steps[node.index].action
    deadline, due_time = _deadline(draft, node), draft.now + put_off_us(verdict.delay_us, call, draft.now)
    due_time = due_time if deadline is None else min(due_time, deadline)
    later = due_time if due_time > draft.now else None
    draft.add(AttemptWithdrawn(draft.now, node.step.id, call.attempts, False, verdict.error, later))
    if draft.state.going_back or (deadline is not None and deadline <= draft.now):
        _give_up(draft, node, verdict.error)
    elif is_full(draft.state):
        _give_up(draft, node, full_error(draft.state, verdict.error))


def _settle_waiting(draft: Draft, node: Node, attempt: int, verdict: InProgress) -> None:
    if draft.state.going_back:
        draft.add(StepGivenUp(draft.now, node.step.id, attempt, AT_WORK))
        return
    interval_us, call = verdict.poll_interval_us, draft.state.steps[node.index].action
    if interval_us is not None and is_full(draft.state):
        _give_up(draft, node, full_error(draft.state, STILL_AT_WORK))
        return
    due_time = None if interval_us is None else draft.now + poll_delay_us(interval_us, call, draft.now)
    draft.add(StepDeferred(draft.now, node.step.id, attempt, due_time))
