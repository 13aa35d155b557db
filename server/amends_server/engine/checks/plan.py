"""What would happen if a step failed, and what would be undone: for the author's eyes, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from amends_server.engine.checks.branches import Needs, needs_of
from amends_server.engine.definition import Definition, Kind, OnError, Step
from amends_server.engine.graph import Graph, Node, ancestors
from amends_server.engine.policy import ENDLESS

PLANS_STEPS_MAX = 200
"""Steps of a definition that plans are made for. They name steps by the square of that: 200 with the longest ids make
2.7 MB, which fits into one message, and take 20 ms, with conditions of their own 100.
"""


class Outcome(Enum):
    """What a saga does when a step has failed."""

    TURNS_BACK = "turns back"
    STUCK = "stuck"
    RETRIES = "retries"
    """It goes on trying, without end."""
    GOES_ON = "goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens if `step` is refused, by a business error that no rule of its own takes, and if nobody can tell.

    `undone` are the steps whose compensations are called if the saga turns back, last first, for a step whose outcome
    stays unknown while all is done that may be done before it: what a refusal leaves out is the step itself. Each is
    with whether it is uncertain that it was called by then.
    """

    step: str
    if_refused: Outcome
    if_unknown: Outcome
    attempts_max: int
    undone: tuple[tuple[str, bool], ...]


def make_plans(graph: Graph) -> Iterator[Plan]:
    """Yield a plan for each step, as the definition lists them."""
    known = ancestors([node.before for node in graph.nodes], graph.order)
    needs = [needs_of(node.step.when) for node in graph.nodes]
    for node in graph.nodes:
        refused, unknown = _if_refused(node), _if_unknown(node, graph.definition)
        back = Outcome.TURNS_BACK in (refused, unknown)
        yield Plan(
            step=node.step.id,
            if_refused=refused,
            if_unknown=unknown,
            attempts_max=node.retry.attempts_max,
            undone=tuple(_undone(graph, node, known, needs)) if back else (),
        )


def _if_refused(node: Node) -> Outcome:
    rule = next((rule.then for rule in node.step.on_error if not rule.codes and rule.when is None), OnError.COMPENSATE)
    if rule is OnError.CONTINUE:
        return Outcome.GOES_ON
    if rule is OnError.RETRY and _is_endless(node):
        return Outcome.RETRIES
    return Outcome.STUCK if node.step.kind is Kind.RETRIABLE else Outcome.TURNS_BACK


def _if_unknown(node: Node, definition: Definition) -> Outcome:
    compensatable = node.step.kind is Kind.COMPENSATABLE
    if _is_endless(node) and not (compensatable and definition.deadline_us is not None):
        return Outcome.RETRIES
    return Outcome.TURNS_BACK if compensatable else Outcome.STUCK


def _is_endless(node: Node) -> bool:
    return node.retry.attempts_max == ENDLESS and node.step.deadline_us is None


def _undone(graph: Graph, failed: Node, known: list[int], needs: list[Needs]) -> Iterator[tuple[str, bool]]:
    need = needs[failed.index]
    for i in reversed(graph.order):
        step, comes_after = graph.nodes[i].step, known[i] >> failed.index & 1
        if step.owes_compensation and not comes_after and not need.exclude(needs[i]):
            comes_before = known[failed.index] >> i & 1
            certain = comes_before and need.imply(needs[i]) and not _may_be_passed_over(step)
            yield step.id, not certain and i != failed.index


def _may_be_passed_over(step: Step) -> bool:
    return any(rule.then is OnError.CONTINUE for rule in step.on_error)
