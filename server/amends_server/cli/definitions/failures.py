"""What would happen if a step of a definition failed, for its author: a line for each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from amends.v1 import definition_pb2, orchestrator_pb2
from amends_server.cli.output import print_line, print_table

ENDLESS = -1
"""`attempts_max` of a step that is tried until it has an answer."""


def print_failures(definition: definition_pb2.Definition, plans: Sequence[orchestrator_pb2.CompensationPlan]) -> None:
    """Write for each step what its failure would lead to; nothing without plans."""
    if not plans:
        return
    steps = {step.id: step for step in definition.steps}
    before = _ancestors(definition)
    rows = [_Row(steps[plan.failed_step], plan, before) for plan in plans]
    print_table(
        ("STEP", "IF IT IS REFUSED", "IF NO ATTEMPT GETS AN ANSWER"),
        [(row.step.id, row.refused, row.unanswered) for row in rows],
        "",
    )
    for note in _notes(definition, plans):
        print_line(note)


def _notes(definition: definition_pb2.Definition, plans: Sequence[orchestrator_pb2.CompensationPlan]) -> Iterator[str]:
    if any(plan.compensated_steps for plan in plans):
        yield "b → a: first b is undone, then a. a, b: at the same time."
        if any(any(plan.uncertain) for plan in plans):
            yield "a?: only if it was called by then, and not refused."
        if definition.on_compensation_failure == definition_pb2.ON_COMPENSATION_FAILURE_CONTINUE:
            yield "If a step cannot be undone, the others are, and then the saga is STUCK."
        else:
            yield "If a step cannot be undone, the saga is STUCK there, with the steps before it not undone."
    if any(orchestrator_pb2.FAILURE_OUTCOME_STUCK in (plan.if_refused, plan.if_unknown) for plan in plans):
        yield "STUCK: the saga waits for an operator, who sees it with `amends stuck`."


@dataclass(frozen=True, slots=True)
class _Row:
    step: definition_pb2.StepDefinition
    plan: orchestrator_pb2.CompensationPlan
    before: dict[str, frozenset[str]]

    @property
    def refused(self) -> str:
        """What a business error leads to: by the rules of the step, and without them."""
        rules = "".join(f"{each}; " for each in self._rules())
        return f"{rules}{'else ' if rules else ''}{self._outcome(self.plan.if_refused, undoes_itself=False)}"

    @property
    def unanswered(self) -> str:
        """What it leads to that nobody can tell what the participant did."""
        outcome = self.plan.if_unknown
        text = self._outcome(outcome, undoes_itself=True)
        if outcome == orchestrator_pb2.FAILURE_OUTCOME_RETRIES:
            return text
        if self.plan.attempts_max == ENDLESS:
            return f"at the deadline {text}"
        return f"after {self.plan.attempts_max} attempt{'' if self.plan.attempts_max == 1 else 's'} {text}"

    def _rules(self) -> Iterator[str]:
        for rule in self.step.on_error:
            if not rule.codes and not rule.when:
                return  # it takes whatever is left, and that is what the plan says
            what = " or ".join(rule.codes) or "an error"
            condition = f" when {' '.join(rule.when.split())}" if rule.when else ""
            yield f"{what}{condition} {self._rule(rule)}"

    def _rule(self, rule: definition_pb2.ErrorRule) -> str:
        match rule.WhichOneof("action"):
            case "continue_with":
                return "goes on"
            case "retry":
                return "is tried again"
            case _:
                return "turns back"

    def _outcome(self, outcome: orchestrator_pb2.FailureOutcome.ValueType, *, undoes_itself: bool) -> str:
        match outcome:
            case orchestrator_pb2.FAILURE_OUTCOME_TURNS_BACK:
                return f"turns back, {self._undone(undoes_itself)}"
            case orchestrator_pb2.FAILURE_OUTCOME_STUCK:
                return "STUCK"
            case orchestrator_pb2.FAILURE_OUTCOME_RETRIES:
                return "is tried again without end"
            case orchestrator_pb2.FAILURE_OUTCOME_GOES_ON:
                return "goes on"
            case _:
                return "–"

    def _undone(self, itself: bool) -> str:
        uncertain = dict(zip(self.plan.compensated_steps, self.plan.uncertain, strict=True))
        if not itself:
            uncertain.pop(self.step.id, None)
        groups: dict[int, list[str]] = {}
        turn: dict[str, int] = {}
        for name, maybe in uncertain.items():  # those after it have come before
            turn[name] = 1 + max((turn[other] for other in turn if name in self.before[other]), default=0)
            groups.setdefault(turn[name], []).append(f"{name}{'?' if maybe else ''}")
        order = " → ".join(", ".join(groups[each]) for each in sorted(groups))
        return f"undoes {order}" if order else "nothing to undo"


def _ancestors(definition: definition_pb2.Definition) -> dict[str, frozenset[str]]:
    """For each step those that come before it."""
    from amends_server.engine.graph import ancestors, topological_order

    names = [step.id for step in definition.steps]
    index = {name: i for i, name in enumerate(names)}
    before = [tuple(index[name] for name in step.after) for step in definition.steps]
    order = topological_order(before)
    assert order is not None, "only what can be registered has plans"
    known = ancestors(before, order)
    return {
        name: frozenset(names[i] for i in range(len(names)) if known[place] >> i & 1)
        for place, name in enumerate(names)
    }
