"""Completions: the outcome of a step that waits, as somebody brings it who has its token, or as a test says it."""

from __future__ import annotations

from amends.testing._machine import TOKENS, Machine
from amends.testing._refusals import as_clients_see_them
from amends_server.engine.commands import Complete, Refused, Succeeded, Unknown
from amends_server.engine.key import call_key
from amends_server.errors import TokenInvalid


def completion_of(
    machine: Machine, step_id: str, token: str | None, verdict: Succeeded | Refused | Unknown
) -> Complete:
    """Return the command that brings an outcome. Without a token it is of the step's last attempt.

    :raises PermissionDenied: if the token is not one of this step of this saga.
    """
    started, graph = machine.state.started, machine.state.graph
    if token is None or step_id not in graph.index:
        attempt = machine.state.step(step_id).action.attempts if step_id in graph.index else 0
        return Complete(step_id, attempt, verdict)
    key = call_key(started.namespace, started.saga_id, step_id, compensation=False)
    attempt = TOKENS.attempt_of(key, started.time, token) or 0
    if attempt == 0:
        with as_clients_see_them():
            raise TokenInvalid(started.saga_id, step_id)
    return Complete(step_id, attempt, verdict)
