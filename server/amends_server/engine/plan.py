"""What would be compensated, in which order, if a step failed: for the author's eyes, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from amends_server.engine.definition import Kind
from amends_server.engine.graph import Graph, ancestors

PLANS_STEPS_MAX = 200
"""Steps of a definition that plans are made for. They name steps by the square of that: 200 with the longest ids make
2.6 MB, which fits into one message, and take 10 ms.
"""


def compensation_plans(graph: Graph) -> Iterator[tuple[str, list[str]]]:
    """Yield for each step that can turn the saga back the steps that would be compensated, last first.

    It is the plan for a step whose outcome stays unknown while everything that may be done before it is done: what a
    refusal leaves out is the failed step itself.
    """
    known = ancestors([node.before for node in graph.nodes], graph.order)
    for node in graph.nodes:
        if node.step.kind is Kind.RETRIABLE:
            continue
        after = {i for i, ancestors_of in enumerate(known) if ancestors_of >> node.index & 1}
        undone = [
            graph.nodes[i].step.id
            for i in reversed(graph.order)
            if i not in after and graph.nodes[i].step.owes_compensation
        ]
        yield node.step.id, undone
