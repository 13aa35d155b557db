"""What an operator is told when a command is rejected: why, and what can be done instead, as the state has it."""

from __future__ import annotations

from collections.abc import Mapping

from amends_server.engine.commands import Rejected
from amends_server.engine.events import Resolution
from amends_server.engine.state import SagaStatus, State

Ways = Mapping[str, frozenset[Resolution]]
"""The steps that an operator can resolve now, and as what."""

_AFTER_THE_END = {
    SagaStatus.COMPLETED: "start another one that makes up for it",
    SagaStatus.COMPENSATED: "start another one to have its work done",
    SagaStatus.FAILED: "look at its steps to see what is left, and start another one for that",
}


def step_unknown(step: str) -> Rejected:
    """A saga has no such step."""
    return Rejected("STEP_UNKNOWN", f"The saga has no step `{step}`: name one that its definition has.")


def pivot_dispatched(state: State, ways: Ways) -> str:
    """Say why a saga cannot be cancelled any more."""
    return f"The saga is at or past its pivot and only goes forward: {_forward(state, ways)}."


def not_stuck(state: State, ways: Ways) -> str:
    """Say why a saga cannot be given up."""
    return f"Only a STUCK saga can be given up: {_instead_of_giving_up(state, ways)}."


def final(state: State) -> str:
    """Say that a saga has ended."""
    return f"The saga is {state.status.name} and nothing can change it any more: {_AFTER_THE_END[state.status]}."


def resolution_not_allowed(state: State, step: str, resolution: Resolution, ways: Ways) -> str:
    """Say why a step cannot be resolved so."""
    status = state.step(step).status.name
    if step in ways:
        return (
            f"Step `{step}` is {status} and cannot be resolved as {resolution.name}: choose a resolution that it allows"
            f" now: {_names(ways[step])}."
        )
    other = next(iter(ways), None)
    instead = "wait until a call of it waits or has failed" if other is None else f"resolve `{other}`, which can be now"
    return f"Step `{step}` is {status} and cannot be resolved: {instead}."


def _instead_of_giving_up(state: State, ways: Ways) -> str:
    if state.going_back:
        held = next(iter(ways), None)
        if held is None:
            return "wait until it is COMPENSATED or STUCK"
        return f"resolve step `{held}` as {_names(ways[held])} with ResolveStep, or wait until it is STUCK"
    return _forward(state, ways) if state.committed else "cancel it with CancelSaga"


def _forward(state: State, ways: Ways) -> str:
    """Say what leads a saga on that cannot be cancelled. A pivot without verdict is the one thing to turn it by."""
    give_up = ", or give the saga up with FailSaga" if state.status is SagaStatus.STUCK else ""
    for step, allowed in ways.items():
        if Resolution.COMPENSATED in allowed:
            return (
                f"if it is certain that step `{step}` had no effect, resolve it as COMPENSATED with ResolveStep, which"
                f" turns the saga back{give_up}"
            )
    for step, allowed in ways.items():
        return f"resolve step `{step}` as {_names(allowed)} with ResolveStep{give_up}"
    return "wait until it has ended, and start another one that makes up for it"


def _names(allowed: frozenset[Resolution]) -> str:
    return " or ".join(sorted(each.name for each in allowed))
