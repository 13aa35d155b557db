"""How each event moves a saga: `evolve` owns every transition. What it does to the attempts of a call is in `calls`.

Theory
======
A saga is a chain of decisions in a journal. `decide` (next door) looks at a state and a command and answers with
events; `evolve` folds an event into the state; nothing else changes a state, so state = fold(journal), always.

A saga goes forward until it completes or turns back, and never turns forward again:

    PENDING ──▶ RUNNING ──▶ COMPLETED                    forward: `cause` is None
       └───────────┴──▶ COMPENSATING ──▶ COMPENSATED     back: `cause` says why, for ever

STUCK is a halt in either direction: nothing is in flight, nothing is due, and only an operator's event leads on. From
there an operator may also choose FAILED. COMPLETED, COMPENSATED and FAILED are final.

A step has two calls, its action and its compensation, and each call is made in attempts. Of an attempt there are three
things to know. It is *open* from the event that says it is about to be sent until the event that says how it ended:
intent before call, outcome before consequence. It is *due* at a time while the next one is waited for. And it is
*unproven* as long as it may have had an effect:

    dispatched                            unproven + 1     the effect may be there from now on
    refused (a business error)            unproven − 1     this attempt had none; those before it are not absolved
    withdrawn before it was sent          unproven − 1     it never left
    refused, verdict stored by the key    unproven = 0     the participant speaks for all attempts
    succeeded, or ended without verdict   unchanged        the effect is there, or may be
    succeeded, and its output is refused  unchanged        the step has failed, and the effect is there all the same
    in progress                           unchanged        the effect is being made
    compensated, or nothing to undo       unproven = 0     the effect is gone

So `unproven > 0` is the whole rule of who is compensated: every step that was ever dispatched, but for those whose
every attempt is proven to have had no effect. Whether a step succeeded plays no part in it, nor does an operator who
skips it.

A participant that is at work (the step is WAITING) may be asked again under the same key. Such a question is an
attempt like any other, so that one that is lost counts. Its answer speaks for itself and for the work: "in progress"
again takes the question back (− 1), and "refused" takes back both (− 2). Whoever holds a token of the call may bring
the outcome instead, while no question is open: then it speaks for the work alone. What was refused is over with all
its tokens: one that says "refused" once more, because its bearer never got the answer, says nothing of the work that
the next attempt has begun.

A step whose condition is false is SKIPPED, and so is one whose business error a rule has handled by going on: both are
done without an effect. A rule goes on only where nothing is unproven; else the step has failed as without a rule.

Going back, a step may be compensated once all steps after it are clear (nothing open, nothing unproven), or have failed
to be undone and may be passed over. The definition gives that order, not the order in which replies came. An operator's
retry of compensations that failed follows it too.

After a restore, "it is not in the journal" says nothing: a saga on its way forward begins again at its first step, and
each step is unproven, though it may never have been dispatched. `restored` tells why, and what takes the doubt away.

From the first dispatch of a pivot on, the saga cannot turn back, unless the pivot is proven to have had no effect. Its
unknown outcome blocks both ways. Retriable steps come after all that can be undone, so the same rule covers them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from amends_server.engine import calls
from amends_server.engine.events import (
    ActionEvent,
    AttemptWithdrawn,
    CompensationDispatched,
    CompensationEvent,
    CompensationFailed,
    CompensationOmitted,
    CompensationRetryScheduled,
    CompensationSucceeded,
    Event,
    LateReplyRecorded,
    Resolution,
    SagaCompensated,
    SagaCompleted,
    SagaEvent,
    SagaFailed,
    SagaPaused,
    SagaRestored,
    SagaResumed,
    SagaRetried,
    SagaStarted,
    SagaStuck,
    SagaTurnedBack,
    StepDeferred,
    StepDelayed,
    StepDispatched,
    StepErrorHandled,
    StepEvent,
    StepGivenUp,
    StepOutputRefused,
    StepRefused,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepSucceeded,
)
from amends_server.engine.graph import Graph
from amends_server.engine.policy import Time
from amends_server.engine.restored import absolve, doubt, later
from amends_server.engine.state import BLOCKED, DONE, SagaStatus, State, StepState, StepStatus, StuckState
from amends_server.engine.value import replace


def begin(graph: Graph, event: SagaStarted) -> State:
    """Return the state of a saga of which only the start is known."""
    return State(
        graph=graph,
        started=event,
        status=SagaStatus.PENDING,
        sequence=1,
        update_time=event.time,
        steps=(StepState(),) * len(graph.nodes),
        undone=len(graph.nodes),
    )


def fold(graph: Graph, events: Iterable[Event]) -> State:
    """Return the state after a whole journal, which begins with SagaStarted."""
    state: State | None = None
    for event in events:
        if state is None:
            assert isinstance(event, SagaStarted), f"a journal begins with SagaStarted, not {event!r}"
            state = begin(graph, event)
        else:
            state = evolve(state, event)
    assert state is not None, "a journal has at least one event"
    return state


def evolve(state: State, event: Event) -> State:
    """Return the state after one more event. Asserts that the event can follow: anything else is a bug of ours."""
    assert not state.final, f"{event!r} after the end"
    match event:
        case StepRefused() if event.stored and state.restored and not state.graph.node(event.step).rules:
            refused = _evolve_action(state.step(event.step), event)
            return absolve(_change_step(state, event.step, event.time, refused), later(state.graph, event.step))
        case StepDispatched() | StepSucceeded() | StepRefused() | StepRetryScheduled() | StepGivenUp():
            return _change_step(state, event.step, event.time, _evolve_action(state.step(event.step), event))
        case CompensationDispatched() | CompensationSucceeded() | CompensationRetryScheduled() | CompensationFailed():
            return _change_step(state, event.step, event.time, _evolve_compensation(state.step(event.step), event))
        case StepDeferred() | StepOutputRefused() | StepSkipped() | StepDelayed() | StepErrorHandled():
            return _change_step(state, event.step, event.time, _evolve_step(state.step(event.step), event))
        case CompensationOmitted():
            return _change_step(state, event.step, event.time, replace(state.step(event.step), unproven=0))
        case StepResolved():
            resolved = _resolve(state.step(event.step), event, back=state.going_back)
            if event.resolution is Resolution.COMPENSATED and state.restored:
                state = absolve(state, state.graph.ends)
            return _go_on(_change_step(state, event.step, event.time, resolved))
        case AttemptWithdrawn():
            return _change_step(state, event.step, event.time, _withdraw(state.step(event.step), event))
        case LateReplyRecorded(_, step, attempt, compensation, reply):
            return replace(_next(state, event.time), late=state.late | {(step, attempt, compensation, reply)})
        case _:
            return _evolve_saga(state, event)


def _evolve_saga(state: State, event: SagaEvent) -> State:
    state = _next(state, event.time)
    match event:
        case SagaTurnedBack():
            assert not state.going_back, "a saga turns back once"
            state = _drop_delays(state)
            return replace(state, status=SagaStatus.COMPENSATING, cause=event.cause, stuck=None)
        case SagaStuck():
            stuck = StuckState(steps=event.steps, time=event.time)
            return replace(state, status=SagaStatus.STUCK, stuck=stuck, stuck_count=state.stuck_count + 1)
        case SagaRetried():
            return _go_on(_retry(state, event.time))
        case SagaPaused():
            return replace(state, paused=True, pause_time=event.time)
        case SagaResumed():
            return replace(_resume(state, event.time), paused=False, pause_time=None)
        case SagaRestored():
            return doubt(state, event.time)
        case SagaCompleted():
            assert state.undone == 0, "completed with steps undone"
            assert not state.going_back, "completed on the way back"
            return replace(state, status=SagaStatus.COMPLETED, output=event.output, ending=event)
        case SagaCompensated():
            assert all(step.clear for step in state.steps), "compensated with something not undone"
            return replace(state, status=SagaStatus.COMPENSATED, ending=event)
        case SagaFailed():
            assert state.active == 0, "given up with a call in flight"
            return replace(state, status=SagaStatus.FAILED, stuck=None, ending=event)
        case SagaStarted():
            raise AssertionError("a saga starts once")
        case _:
            assert_never(event)


def _next(state: State, time: Time) -> State:
    return replace(state, sequence=state.sequence + 1, update_time=time)


def _change_step(state: State, step_id: str, time: Time, step: StepState) -> State:
    i = state.graph.index[step_id]
    old = state.steps[i]
    return replace(
        state,
        sequence=state.sequence + 1,
        update_time=time,
        status=SagaStatus.RUNNING if state.status is SagaStatus.PENDING else state.status,
        steps=(*state.steps[:i], step, *state.steps[i + 1 :]),
        undone=state.undone + (old.status in DONE) - (step.status in DONE),
        active=state.active - old.active + step.active,
        timed=state.timed - old.timed + step.timed,
    )


def _evolve_action(step: StepState, event: ActionEvent) -> StepState:
    call = step.action
    match event:
        case StepDispatched():
            return replace(
                step,
                status=StepStatus.WAITING if call.waiting else StepStatus.RUNNING,
                action=calls.dispatch(call, event),
                unproven=step.unproven + 1,
                input=event.input if call.attempts == 0 else step.input,
            )
        case StepSucceeded():
            return replace(
                step,
                status=StepStatus.SUCCEEDED,
                action=calls.settle(call, event),
                output=event.output,
                error=None,
                related_services=event.related_services,
            )
        case StepRefused():
            called = event.attempt > 0
            unproven = 0 if event.stored else step.unproven - (call.at_stake if called else 0)
            return replace(
                step,
                status=StepStatus.FAILED,
                action=calls.refuse(call, event, unproven) if called else calls.fail_uncalled(call, event),
                unproven=unproven,
                error=event.error,
                related_services=event.related_services,
            )
        case StepRetryScheduled() if event.refused:
            unproven = step.unproven - call.at_stake
            return replace(
                step, status=StepStatus.RUNNING, action=calls.refuse(call, event, unproven), unproven=unproven
            )
        case StepRetryScheduled():
            status = step.status if call.open else StepStatus.RUNNING
            return replace(step, status=status, action=calls.schedule(call, event))
        case StepGivenUp():
            status = StepStatus.UNKNOWN if step.unproven else StepStatus.FAILED  # all were refused, or none was made
            return replace(step, status=status, action=calls.give_up(call, event), error=event.error)
        case _:
            assert_never(event)


def _evolve_step(step: StepState, event: StepEvent) -> StepState:
    call = step.action
    match event:
        case StepDeferred():
            asked = call.at_stake - 1  # a question about work in progress has made nothing of its own
            return replace(
                step, status=StepStatus.WAITING, action=calls.defer(call, event), unproven=step.unproven - asked
            )
        case StepOutputRefused():
            return replace(
                step,
                status=StepStatus.FAILED,
                action=calls.hear(calls.settle(call, event, event.error), None),
                output=event.output,
                error=event.error,
                related_services=event.related_services,
            )
        case StepSkipped():
            assert call.attempts == 0, f"{event!r} of a step that was called"
            return replace(step, status=StepStatus.SKIPPED, action=replace(call, due_time=None))
        case StepDelayed():
            assert step.status is StepStatus.PENDING, f"{event!r} of a step that has begun"
            return replace(step, action=replace(call, due_time=event.due_time))
        case StepErrorHandled():
            assert step.status is StepStatus.FAILED, f"{event!r} of a step without error"
            assert step.unproven == 0, f"{event!r} of a step that may have had an effect"
            return replace(step, status=StepStatus.SKIPPED, output=event.output)
        case _:
            assert_never(event)


def _evolve_compensation(step: StepState, event: CompensationEvent) -> StepState:
    call = step.compensation
    match event:
        case CompensationDispatched():
            assert not step.action.active, "compensated while the action is in flight"
            return replace(
                step,
                status=StepStatus.COMPENSATING,
                compensation=calls.dispatch(call, event),
                arguments=event.arguments if call.attempts == 0 else step.arguments,
            )
        case CompensationSucceeded():
            return replace(step, status=StepStatus.COMPENSATED, compensation=calls.settle(call, event), unproven=0)
        case CompensationRetryScheduled():
            return replace(step, compensation=calls.schedule(call, event))
        case CompensationFailed():
            failed = calls.settle(call, event, event.error) if event.attempt > 0 else calls.fail_uncalled(call, event)
            return replace(step, status=StepStatus.COMPENSATION_FAILED, compensation=failed, resolution=None)
        case _:
            assert_never(event)


def _withdraw(step: StepState, event: AttemptWithdrawn) -> StepState:
    if event.compensation:
        return replace(step, compensation=calls.withdraw(step.compensation, event))
    return replace(step, action=calls.withdraw(step.action, event), unproven=step.unproven - 1)


def _resolve(step: StepState, event: StepResolved, *, back: bool) -> StepState:
    assert not step.action.open, "resolved while its action is in flight"
    assert not step.compensation.open, "resolved while its compensation is in flight"
    error = step.error or (None if step.action.waiting else step.action.error)
    action = replace(step.action, due_time=None, waiting=False, end_time=step.action.end_time or event.time)
    compensation = replace(step.compensation, due_time=None)
    step = replace(step, action=action, compensation=compensation, resolution=event)
    match event.resolution:
        case Resolution.SUCCEEDED:
            unproven = max(step.unproven, 1)  # an operator says that the effect is there
            return replace(step, status=StepStatus.SUCCEEDED, output=event.output, error=None, unproven=unproven)
        case Resolution.COMPENSATED:
            return replace(step, status=StepStatus.COMPENSATED, unproven=0)
        case Resolution.SKIPPED if back:
            return replace(step, status=StepStatus.COMPENSATION_FAILED)
        case Resolution.SKIPPED:
            # An operator's word is enough to go on; what is unproven stays so: a compensation is owed, a pivot commits.
            # What was tried again has failed so far; of work in progress there is no verdict yet, and so no error.
            return replace(step, status=StepStatus.SKIPPED, error=error)


def _resume(state: State, time: Time) -> State:
    assert state.pause_time is not None, "resumed without a pause"
    if state.active == 0:
        return state
    pause_time = state.pause_time
    return replace(state, steps=tuple(_resume_step(step, pause_time, time) for step in state.steps))


def _resume_step(step: StepState, pause_time: Time, time: Time) -> StepState:
    action, compensation = (calls.resume(call, pause_time, time) for call in (step.action, step.compensation))
    return replace(step, action=action, compensation=compensation)


def _retry(state: State, time: Time) -> State:
    return state.with_steps(tuple(_retry_step(step, time, back=state.going_back) for step in state.steps))


def _retry_step(step: StepState, time: Time, *, back: bool) -> StepState:
    if step.status is StepStatus.COMPENSATION_FAILED:
        again = calls.forgive(step.compensation, time)  # not due: it waits for its turn in the order
        return replace(step, status=StepStatus.COMPENSATING, compensation=again, resolution=None)
    if step.compensation.due_time is not None:
        return replace(step, compensation=replace(step.compensation, due_time=time))
    if not back and step.status in BLOCKED:
        return replace(step, status=StepStatus.RUNNING, action=replace(calls.forgive(step.action, time), due_time=time))
    if step.action.rests:
        return replace(step, action=replace(step.action, due_time=time))
    return step


def _drop_delays(state: State) -> State:
    """Forget what was to begin later: nothing begins on the way back."""
    if not any(step.status is StepStatus.PENDING and step.active for step in state.steps):
        return state
    steps = tuple(_drop_delay(step) if step.status is StepStatus.PENDING else step for step in state.steps)
    return state.with_steps(steps)


def _drop_delay(step: StepState) -> StepState:
    return replace(step, action=replace(step.action, due_time=None))


def _go_on(state: State) -> State:
    if state.status is not SagaStatus.STUCK:
        return state
    return replace(state, status=SagaStatus.COMPENSATING if state.going_back else SagaStatus.RUNNING, stuck=None)
