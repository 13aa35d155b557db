"""What can go wrong with one call of a saga, and the list of all such cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from amends_server.engine.definition import Kind
from amends_server.engine.graph import Graph, Node


class Fault(StrEnum):
    """What goes wrong with a call. The outcome is unknown wherever no answer comes, so that the call is made again."""

    REFUSED = "refused"
    """The participant says that it will not, and does nothing."""
    LOST = "unknown before effect"
    """The request is lost, once."""
    LOST_EACH_TIME = "unknown before effect, each time"
    """The request is lost in every attempt: the saga turns back, and undoes what was never done."""
    REPLY_LOST = "unknown after effect"
    """The reply is lost, once: the next attempt finds the call done."""
    REPLY_LOST_EACH_TIME = "unknown after effect, each time"
    """The reply is lost in every attempt: the saga turns back, and undoes what it does not know to be done."""
    CRASH_BEFORE_INTENT = "crash before the intent is durable"
    """The orchestrator dies before it has written that it makes this call, and does the step before it again."""
    CRASH_AFTER_INTENT = "crash after the intent is durable"
    """The orchestrator dies before it sends the call."""
    CRASH_BEFORE_OUTCOME = "crash before the outcome is durable"
    """The orchestrator dies with the answer in its hand."""
    CRASH_AFTER_OUTCOME = "crash after the outcome is durable"
    """The orchestrator dies when it has written the answer down."""
    DUPLICATE = "duplicate call"
    """The request arrives twice."""
    LATE = "late call"
    """The request is under way for so long that it arrives when the saga is over and, if it can be, the call undone."""
    LATE_DUPLICATE = "late duplicate"
    """The call is done and, if it can be, undone; then its request arrives once more."""


_OF_ACTIONS = tuple(Fault)
_OF_COMPENSATIONS = (
    Fault.LOST,
    Fault.REPLY_LOST,
    Fault.CRASH_BEFORE_INTENT,
    Fault.CRASH_AFTER_INTENT,
    Fault.CRASH_BEFORE_OUTCOME,
    Fault.CRASH_AFTER_OUTCOME,
    Fault.DUPLICATE,
)
TURNING = frozenset({Fault.LOST_EACH_TIME, Fault.REPLY_LOST_EACH_TIME, Fault.LATE, Fault.LATE_DUPLICATE})
"""Faults that go on until the saga turns back, where the step is one of which it can turn back."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what goes wrong with which call.

    `turned_by`: the step that makes the saga turn back, so that there is a compensation to go wrong; None for actions.
    """

    step: str
    compensation: bool
    fault: Fault
    turned_by: str | None = None


def cases(graph: Graph, called: Sequence[str]) -> Iterator[Case]:
    """Yield every case of a saga whose run without faults called these steps, in this order."""
    for step in called:
        node = graph.node(step)
        for fault in _OF_ACTIONS:
            if _can_happen(node, fault):
                yield Case(step, False, fault)
        if node.step.owes_compensation:
            turned_by = _turned_by(graph, node, called)
            for fault in _OF_COMPENSATIONS:
                yield Case(step, True, fault, turned_by)


def _can_happen(node: Node, fault: Fault) -> bool:
    match fault:
        case Fault.REFUSED:
            return node.step.kind is not Kind.RETRIABLE  # such a step has promised that it never refuses
        case Fault.LOST_EACH_TIME | Fault.REPLY_LOST_EACH_TIME:
            return node.step.kind is Kind.COMPENSATABLE  # of another there is no way back: it waits for an operator
        case Fault.CRASH_BEFORE_INTENT:
            return bool(node.before)  # of a first step it means that there is no saga yet
        case _:
            return True


def _turned_by(graph: Graph, node: Node, called: Sequence[str]) -> str:
    """The last step after this one that may refuse; the step itself, by an unknown outcome, where there is none."""
    later: set[int] = set()
    rest = list(node.after)
    while rest:
        index = rest.pop()
        if index not in later:
            later.add(index)
            rest.extend(graph.nodes[index].after)
    refusing = [s for s in called if graph.index[s] in later and graph.node(s).step.kind is not Kind.RETRIABLE]
    return refusing[-1] if refusing else node.step.id
