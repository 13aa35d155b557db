"""What a saga does not know of itself after its store was restored from a backup. A part of `evolve`.

The participants remember what the journal has lost: the saga may have gone further, to its end, and it may have turned
back, so that what the journal calls done was undone. So a saga on its way forward begins again at its first step, under
the same keys and with the same bytes, and the participants answer from what they remember. A step that was undone
meanwhile is refused, and the saga turns back. And each step is taken for one that may have had its effect: it is
compensated if the saga turns back, and a pivot blocks the way back.

Rules handle no errors of a restored saga: a refusal may say that a step was undone. One that the participant keeps
under the key speaks for what was lost, too. If no rule can have handled it then, the saga has not got beyond that
step, or has turned back; so it takes the doubt from a pivot after it. An operator who calls a step compensated does so
as well. What can be compensated stays in doubt: to undo nothing does no harm.

From a pivot's success on nothing is ever undone, and on the way back nothing new is done: there only what is not done
yet is in doubt, or nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from amends_server.engine.graph import Graph
from amends_server.engine.policy import Time
from amends_server.engine.state import DONE, CallState, SagaStatus, State, StepState, StepStatus
from amends_server.engine.value import replace


def doubt(state: State, time: Time) -> State:
    """Return the state of a saga that may have gone further than its journal says."""
    state = replace(state, restored=True)
    if state.going_back:
        return state
    ends = (state.steps[i] for i in state.graph.ends)
    if any(step.status in DONE and step.unproven for step in ends):
        return state.with_steps(
            tuple(step if step.status in DONE else _asked_again(step, time) for step in state.steps)
        )
    steps = tuple(_begun_again(step) for step in state.steps)
    status = SagaStatus.PENDING if state.status is SagaStatus.PENDING else SagaStatus.RUNNING
    undone = sum(step.status not in DONE for step in steps)
    return replace(state, status=status, stuck=None, undone=undone).with_steps(steps)


def _doubted(step: StepState) -> StepState:
    return replace(step, unproven=step.unproven + 1)


def _asked_again(step: StepState, time: Time) -> StepState:
    """Have a participant asked that is at work: it may have told its outcome already."""
    if step.action.takes_word:
        step = replace(step, action=replace(step.action, due_time=time))
    return _doubted(step)


def _begun_again(step: StepState) -> StepState:
    if step.status is StepStatus.SKIPPED or (step.status in DONE and step.resolution is not None):
        return step  # by its condition, by a rule, or by an operator: no participant can tell more
    attempts, heard = step.action.attempts, step.action.heard
    call = CallState(attempts=attempts, forgiven=attempts, heard=heard, heard_error=step.action.heard_error)
    return _doubted(replace(step, status=StepStatus.PENDING, action=call, error=None))


def absolve(state: State, indexes: Collection[int]) -> State:
    """Take the doubt from those of the steps that commit the saga."""
    clear = {i for i in state.graph.ends if i in indexes and state.steps[i].status is StepStatus.PENDING}
    return state.with_steps(tuple(replace(s, unproven=0) if i in clear else s for i, s in enumerate(state.steps)))


def later(graph: Graph, step_id: str) -> set[int]:
    """Return the steps that come after a step, directly or not."""
    known: set[int] = set()
    found = [graph.index[step_id]]
    while found:
        new = set(graph.nodes[found.pop()].after) - known
        known |= new
        found += new
    return known
