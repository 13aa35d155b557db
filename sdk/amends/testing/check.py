"""The check of every failure: a saga is run once for each thing that can go wrong with each of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from amends.definition.builder import Saga
from amends.participant.participant import Participant
from amends.testing._handlers import Handlers
from amends.testing._machine import Machine, graph_of
from amends.testing._text import journal_text
from amends.testing._trial import Trial
from amends.testing.faults import Case, Fault, cases
from amends.testing.ledger import Books, Ledger
from amends.testing.report import Finding, Report, Run, change, difference
from amends.views import SagaStatus
from amends_server.engine.graph import Graph
from amends_server.engine.state import StepStatus

RUNS_MAX = 1_000
"""Runs of one check, if nobody says otherwise: of simulated steps they take a few seconds, of real handlers longer."""

In = TypeVar("In")
Out = TypeVar("Out")


def check_every_failure(
    saga: Saga[In, Out],
    input: In,
    *,
    ledger: Ledger | None = None,
    participants: Iterable[Participant] = (),
    effects: Callable[[], object] | None = None,
    fresh: Callable[[], AbstractContextManager[object]] = nullcontext,
    limit: int = RUNS_MAX,
) -> Report:
    """Run a saga once without a fault, and then once for each `Fault` of each of its calls; report how each run ends.

    Where steps run at the same time, each fault happens three times: beside nothing, beside replies of these steps that
    are under way, and beside requests that are.

    Calls to `participants` are made to their handlers, here, and `effects()` says what they have done: numbers, or
    mappings of these, of which changes are compared, or anything else that is equal when it is the same. `fresh` makes
    a context that is entered anew around each run, for handlers that need a new database or the like: without it they
    must be able to complete as many sagas as there are cases. All other steps are simulated by the `ledger`, by default
    one with a barrier and no outputs.

    A run in which an action is refused may complete by other steps than the first one, because a rule for errors goes
    on without a step: then each step that succeeded must have its effect in the ledger, and handlers the same effects
    as in the first run that went that way. After anything else that goes wrong, which tells nothing of the business,
    other steps than without a fault are a finding.

    :raises AssertionError: if the saga does not complete, or has no effects, when nothing goes wrong.
    :raises ValueError: if there are participants, and nobody says by `effects` what they have done; or if there are
        more than `limit` cases.
    """
    handlers = Handlers(participants)
    if handlers.any and effects is None:
        raise ValueError("Say by effects=… what the handlers have done: a function that returns their balances, say.")
    check = _Check(graph_of(saga), input, ledger or Ledger(), handlers, effects, fresh)
    clean = check.clean()
    wanted = list(cases(check.graph, clean.called))
    if len(wanted) > limit:
        raise ValueError(
            f"Saga {saga.name!r} has {len(wanted)} cases, and limit={limit} are the most that are run: raise it if the "
            "time is yours, or check the saga in parts, each as one of its own."
        )
    results = [check.run(case, n) for n, case in enumerate(wanted, start=1)]
    judge = _Judge(clean, exact=effects is None)
    judged = [(result.struck, judge.run(result)) for result in results]
    return Report(
        saga.name,
        runs=[run for struck, run in judged if struck or isinstance(run, Finding)],
        impossible=[run.case for struck, run in judged if not struck and not isinstance(run, Finding)],
        never_called=[node.step.id for node in check.graph.nodes if node.step.id not in clean.called],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """A run: whether its fault happened, what has changed, and which steps were called."""

    case: Case | None
    struck: bool
    helped: bool
    changed: object
    machine: Machine
    called: list[str]

    @property
    def status(self) -> SagaStatus:
        return SagaStatus(self.machine.state.status.name)

    @property
    def way(self) -> tuple[str, ...]:
        """The steps that succeeded."""
        return self.steps_that(StepStatus.SUCCEEDED)

    def steps_that(self, status: StepStatus) -> tuple[str, ...]:
        """Return the steps of a status."""
        nodes, steps = self.machine.state.graph.nodes, self.machine.state.steps
        return tuple(n.step.id for n, s in zip(nodes, steps, strict=True) if s.status is status)

    @property
    def journal(self) -> str:
        return journal_text(self.machine)


@dataclass(frozen=True, slots=True)
class _Check:
    graph: Graph
    input: object
    ledger: Ledger
    handlers: Handlers
    effects: Callable[[], object] | None
    fresh: Callable[[], AbstractContextManager[object]]

    def clean(self) -> _Result:
        """Run without a fault, to see what there is to compare with."""
        result = self.run(None, 0)
        if result.status is not SagaStatus.COMPLETED:
            waiting = result.steps_that(StepStatus.WAITING)
            hint = "Give simulated steps their outputs: ledger=Ledger(outputs={…})."
            if waiting:
                hint = f"Nobody completes a step here: have {', '.join(waiting)} reply, or ask to be called again."
            raise AssertionError(
                f"With nothing going wrong the saga is {result.status}, not COMPLETED. {hint}\n{result.journal}"
            )
        if result.changed is None:
            raise AssertionError("With nothing going wrong the saga has no effect that is seen: look at effects=….")
        return result

    def run(self, case: Case | None, number: int) -> _Result:
        books = Books(self.ledger)
        with self.fresh():
            before = self._snapshot(books)
            trial = Trial(
                self.graph,
                self.input,
                saga_id=self.handlers.new_id("check", number),
                case=case,
                books=books,
                handlers=self.handlers,
            )
            trial.run()
            changed = change(before, self._snapshot(books))
        return _Result(
            case=case,
            struck=trial.struck,
            helped=trial.helped,
            changed=changed,
            machine=trial.machine,
            called=trial.called,
        )

    def _snapshot(self, books: Books) -> object:
        if self.effects is None:
            return dict(books.effects)
        simulated = any(not self.handlers.have(node.step.participant) for node in self.graph.nodes)
        return {"handlers": self.effects(), "ledger": dict(books.effects)} if simulated else self.effects()


class _Judge:
    """Says of each run whether its effects are those that they should be. `exact`: they are counted by step."""

    def __init__(self, clean: _Result, *, exact: bool) -> None:
        self._exact = exact
        self._clean = clean
        self._all: dict[tuple[str, ...], object] = {clean.way: clean.changed}

    def run(self, result: _Result) -> Run:
        case = result.case
        assert case is not None, "only runs with a fault are judged"
        completed = result.status is SagaStatus.COMPLETED
        way = self._named(result.way) if completed else ""
        astray = bool(way) and not _may_go_another_way(case)
        wanted = self._clean.changed if astray else self._wanted(result) if completed else None
        if result.status is not SagaStatus.STUCK and result.changed == wanted and not astray:
            return Run(case=case, status=result.status, helped=result.helped, way=way)
        effects, wants = difference(result.changed, wanted)
        if effects == wants:  # what differs is the way alone
            effects, wants = "those of other steps", "the same steps as without a fault"
        if not completed:
            wants = "nothing" if result.status is SagaStatus.COMPENSATED else "all or nothing"
        return Finding(
            case=case,
            status=result.status,
            helped=result.helped,
            way=way,
            effects=effects,
            wanted=wants,
            journal=result.journal,
        )

    def _wanted(self, result: _Result) -> object:
        """What a run that completed by these steps should have changed."""
        if result.way not in self._all:
            counted = {step: 1 for step in result.way if _has_effect(result.machine.state.graph, step)}
            self._all[result.way] = (counted or None) if self._exact else result.changed
        return self._all[result.way]

    def _named(self, way: tuple[str, ...]) -> str:
        """In words, by what a way differs from that of the run without a fault; empty if it does not."""
        without = [step for step in self._clean.way if step not in way]
        instead = [step for step in way if step not in self._clean.way]
        parts = (("without", without), ("with", instead))
        return ", ".join(f"{word} {', '.join(steps)}" for word, steps in parts if steps)


def _may_go_another_way(case: Case) -> bool:
    """Tell whether what goes wrong is an answer of the business; of anything else a saga must not make another way."""
    return case.fault is Fault.REFUSED and not case.compensation


def _has_effect(graph: Graph, step: str) -> bool:
    compensation = graph.node(step).step.compensation
    return compensation is None or not compensation.not_needed
