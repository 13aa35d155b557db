"""What can go wrong with one call of a saga, and the list of all such cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """The request is lost in every attempt: the saga turns back and undoes what was never done, or it is STUCK."""
    REPLY_LOST = "unknown after effect"
    """The reply is lost, once: the next attempt finds the call done."""
    REPLY_LOST_EACH_TIME = "unknown after effect, each time"
    """The reply is lost in every attempt: the saga turns back and undoes what may be done, or it is STUCK."""
    CRASH_BEFORE_INTENT = "crash before the intent is durable"
    """The orchestrator dies before it has written that it makes this call, and does the step before it again."""
    CRASH_AFTER_INTENT = "crash after the intent is durable"
    """The orchestrator dies before it sends the call."""
    CRASH_BEFORE_OUTCOME = "crash before the outcome is durable"
    """The orchestrator dies with the answer in its hand."""
    CRASH_AFTER_OUTCOME = "crash after the outcome is durable"
    """The orchestrator dies when it has written the answer down."""
    CRASH_TWICE = "crash before the outcome is durable, twice"
    """The orchestrator dies with the answer in its hand, and the next one does, too."""
    CRASH_BOTH_WAYS = "crash before the outcome is durable, both ways"
    """The orchestrator dies with the answer to the action in its hand, and later with that to its compensation."""
    DUPLICATE = "duplicate call"
    """The request arrives twice."""
    LATE = "late call"
    """The request is under way for so long that it arrives when the saga is over and, if it can be, the call undone."""
    LATE_DUPLICATE = "late duplicate"
    """The call is done and, if it can be, undone; then its request arrives once more."""


class Siblings(StrEnum):
    """What the calls do that are in flight at the same time as the one with which something goes wrong."""

    QUIET = ""
    """Nothing: they are made before it, or after it."""
    REPLYING = "its siblings' replies are under way"
    """They are done, and their replies arrive after it has happened; if the orchestrator dies, they are lost."""
    CALLED = "its siblings' requests are under way"
    """They arrive after it has happened; if the orchestrator dies, when the saga is over, beside those of the next."""


REFUSED = "REFUSED"
"""The code of a business error, unless there is a rule for another."""

EACH_TIME = frozenset({Fault.LOST_EACH_TIME, Fault.REPLY_LOST_EACH_TIME})
LATE = frozenset({Fault.LATE, Fault.LATE_DUPLICATE})


@dataclass(frozen=True, slots=True)
class Case:
    """One run: what goes wrong with which call, and what the calls do that are in flight at the same time.

    `turned_by`: the step that makes the saga turn back, so that there is a compensation to go wrong; None for actions.
    `code`: with which a call is refused.
    """

    step: str
    compensation: bool
    fault: Fault
    siblings: Siblings = Siblings.QUIET
    turned_by: str | None = None
    code: str = REFUSED

    @property
    def disturbance(self) -> str:
        """What goes wrong, in words."""
        return self.fault.value if self.code == REFUSED else f"{self.fault}: {self.code}"

    @property
    def circumstances(self) -> str:
        """What goes wrong beside which other calls, in words."""
        return f"{self.disturbance}, while {self.siblings}" if self.siblings else self.disturbance


def cases(graph: Graph, called: Sequence[str]) -> Iterator[Case]:
    """Yield every case of a saga whose run without faults called these steps, in this order."""
    for step in called:
        node = graph.node(step)
        beside = _beside(graph, node, [graph.node(each) for each in called])
        yield from _cases_of(node, False, None, any(beside))
        if node.step.owes_compensation:
            undone_beside = any(each.step.owes_compensation for each in beside)
            yield from _cases_of(node, True, _turned_by(graph, node, called), undone_beside)


def _cases_of(node: Node, compensation: bool, turned_by: str | None, has_siblings: bool) -> Iterator[Case]:
    for siblings in Siblings if has_siblings else (Siblings.QUIET,):
        for fault in Fault:
            if _can_happen(node, compensation, fault, siblings):
                codes = _codes(node) if fault is Fault.REFUSED and not compensation else [REFUSED]
                yield from (Case(node.step.id, compensation, fault, siblings, turned_by, code) for code in codes)


def _can_happen(node: Node, compensation: bool, fault: Fault, siblings: Siblings) -> bool:
    match fault:
        case Fault.CRASH_BEFORE_INTENT:  # of a first step it means that there is no saga yet; of a call that is made
            return siblings is Siblings.QUIET and (compensation or bool(node.before))  # others are in flight before
        case Fault.CRASH_BOTH_WAYS:
            return compensation
        case _:
            return True


def _codes(node: Node) -> list[str]:
    """The codes with which an action may refuse: each that a rule is for, and one that no rule names."""
    return [REFUSED, *dict.fromkeys(code for rule in node.step.on_error for code in rule.codes)]


def _beside(graph: Graph, node: Node, called: Iterable[Node]) -> list[Node]:
    """The steps that neither come before a step nor after it."""
    after = _later(graph, node)
    return [
        each
        for each in called
        if each.index != node.index and each.index not in after and node.index not in _later(graph, each)
    ]


def _later(graph: Graph, node: Node) -> set[int]:
    """The steps that come after a step."""
    later: set[int] = set()
    rest = list(node.after)
    while rest:
        index = rest.pop()
        if index not in later:
            later.add(index)
            rest.extend(graph.nodes[index].after)
    return later


def _turned_by(graph: Graph, node: Node, called: Sequence[str]) -> str:
    """The last step after this one that may refuse; the step itself, by an unknown outcome, where there is none."""
    later = _later(graph, node)
    refusing = [step for step in called if graph.index[step] in later and _turns_back(graph.node(step))]
    return refusing[-1] if refusing else node.step.id


def _turns_back(node: Node) -> bool:
    """Tell whether the saga turns back when this step refuses, as far as is known without its data."""
    handled = any(not rule.codes or REFUSED in rule.codes for rule in node.step.on_error)
    return node.step.kind is not Kind.RETRIABLE and not handled
