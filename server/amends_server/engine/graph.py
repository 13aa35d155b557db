"""The order of a definition's steps, its templates and policies ready for use: made once, then shared."""

from __future__ import annotations

from amends_server.engine.data.expressions import Expression, compile_expression
from amends_server.engine.data.path import Path, parse_path
from amends_server.engine.data.schema import Schema, parse_schema
from amends_server.engine.data.template import Template, parse_template
from amends_server.engine.definition import Definition, ErrorRule, Kind, OnError, Step
from amends_server.engine.payload import PAYLOAD_BYTES_MAX
from amends_server.engine.policy import COMPENSATABLE_RETRY, COMPENSATION_RETRY, PIVOT_RETRY, RETRIABLE_RETRY, Retry
from amends_server.engine.value import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An error rule, ready for use."""

    codes: frozenset[str]
    when: Expression | None
    then: OnError
    output: Template | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step with its place in the order. `before` and `after` are the indexes of direct neighbours."""

    index: int
    step: Step
    before: tuple[int, ...]
    after: tuple[int, ...]
    input: Template | None
    arguments: Template | None
    retry: Retry
    compensation_retry: Retry
    compensation_timeout_us: int
    when: Expression | None = None
    requires: tuple[Path, ...] = ()
    rules: tuple[Rule, ...] = ()
    output_schema: Schema | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A definition that was validated, indexed.

    `order` is a topological order of the nodes' indexes. `roots` wait for nothing. `ends` are the pivot and retriable
    steps: from the first dispatch of one that may have had an effect, the saga cannot turn back. `payload_bytes_max`
    bounds what templates make.
    """

    definition: Definition
    digest: str
    nodes: tuple[Node, ...]
    index: dict[str, int]
    order: tuple[int, ...]
    roots: tuple[int, ...]
    ends: tuple[int, ...]
    output: Template | None
    input_schema: Schema | None = None
    plain: bool = True
    """True if every step is run as soon as it is ready: none has a condition or a delay."""
    payload_bytes_max: int = PAYLOAD_BYTES_MAX

    def node(self, step_id: str) -> Node:
        """Return a step's node. :raises KeyError: if there is no such step."""
        return self.nodes[self.index[step_id]]


def build_graph(definition: Definition, digest: str, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> Graph:
    """Index a definition that `validation.check` found no errors in."""
    index = {step.id: i for i, step in enumerate(definition.steps)}
    before = [tuple(index[name] for name in step.after) for step in definition.steps]
    after: list[list[int]] = [[] for _ in definition.steps]
    for i, predecessors in enumerate(before):
        for p in predecessors:
            after[p].append(i)
    nodes = tuple(_node(i, step, before[i], tuple(after[i])) for i, step in enumerate(definition.steps))
    order = topological_order(before)
    assert order is not None, "a definition with a cycle was validated"
    return Graph(
        definition=definition,
        digest=digest,
        nodes=nodes,
        index=index,
        order=order,
        roots=tuple(i for i, predecessors in enumerate(before) if not predecessors),
        ends=tuple(i for i, step in enumerate(definition.steps) if step.kind is not Kind.COMPENSATABLE),
        output=_template(definition.output_template),
        input_schema=_schema(definition.input_schema),
        plain=all(step.when is None and step.delay_us is None for step in definition.steps),
        payload_bytes_max=payload_bytes_max,
    )


def topological_order(before: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Order indexes so that each comes after those in its `before`, first listed first; None if there is a cycle."""
    order = order_without_cycles(before)
    return tuple(order) if len(order) == len(before) else None


def order_without_cycles(before: list[tuple[int, ...]]) -> list[int]:
    """Order indexes as `topological_order` does, leaving out those in cycles and after them."""
    missing = [len(set(predecessors)) for predecessors in before]
    after: list[list[int]] = [[] for _ in before]
    for i, predecessors in enumerate(before):
        for p in set(predecessors):
            after[p].append(i)
    order = [i for i, count in enumerate(missing) if count == 0]
    for i in order:  # grows while it is read
        for successor in after[i]:
            missing[successor] -= 1
            if missing[successor] == 0:
                order.append(successor)
    return order


def ancestors(before: list[tuple[int, ...]], order: tuple[int, ...]) -> list[int]:
    """Return for each index the set of all indexes that come before it, as the bits of an integer."""
    sets = [0] * len(before)
    for i in order:
        for p in before[i]:
            sets[i] |= sets[p] | 1 << p
    return sets


def default_retry(kind: Kind) -> Retry:
    """Return the retry policy of an action that has none of its own."""
    match kind:
        case Kind.COMPENSATABLE:
            return COMPENSATABLE_RETRY
        case Kind.PIVOT:
            return PIVOT_RETRY
        case Kind.RETRIABLE:
            return RETRIABLE_RETRY


def _node(index: int, step: Step, before: tuple[int, ...], after: tuple[int, ...]) -> Node:
    compensation = step.compensation
    return Node(
        index=index,
        step=step,
        before=before,
        after=after,
        input=_template(step.input_template),
        arguments=_template(compensation.template if compensation else None),
        retry=step.retry or default_retry(step.kind),
        compensation_retry=(compensation.retry if compensation else None) or COMPENSATION_RETRY,
        compensation_timeout_us=(compensation.timeout_us if compensation else None) or step.timeout_us,
        when=_condition(step.when),
        requires=tuple(parse_path(text) for text in step.requires),
        rules=tuple(_rule(rule) for rule in step.on_error),
        output_schema=_schema(step.output_schema),
    )


def _rule(rule: ErrorRule) -> Rule:
    return Rule(
        codes=frozenset(rule.codes),
        when=_condition(rule.when, error=True),
        then=rule.then,
        output=_template(rule.output_template, error=True),
    )


def _template(text: str | None, *, error: bool = False) -> Template | None:
    return parse_template(text, error=error) if text else None


def _condition(text: str | None, *, error: bool = False) -> Expression | None:
    return compile_expression(text, error=error) if text else None


def _schema(text: str | None) -> Schema | None:
    return parse_schema(text) if text else None
