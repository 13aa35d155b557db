"""The check of every failure: a saga is run once for each thing that can go wrong with each of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from amends.builder import Saga
from amends.participant import Participant
from amends.testing._handlers import Handlers
from amends.testing._machine import Machine, graph_of
from amends.testing._text import journal_text
from amends.testing._trial import Trial
from amends.testing.faults import Case, cases
from amends.testing.ledger import Books, Ledger
from amends.testing.report import Finding, Report, change, difference
from amends.views import SagaStatus
from amends_server.engine.graph import Graph
from amends_server.engine.state import StepStatus

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
) -> Report:
    """Run a saga once without a fault, and then once for each `Fault` of each of its calls; report what is left over.

    Calls to `participants` are made to their handlers, here, and `effects()` says what they have done: numbers, or
    mappings of these, of which changes are compared, or anything else that is equal when it is the same. `fresh` makes
    a context that is entered anew around each run, for handlers that need a new database or the like: without it they
    must be able to complete as many sagas as there are cases. All other steps are simulated by the `ledger`, by default
    one with a barrier and no outputs. Runs that complete by other steps than the first one are left out: what they
    should come to, only a scenario can say.

    :raises AssertionError: if the saga does not complete, or has no effects, when nothing goes wrong.
    :raises ValueError: if there are participants, and nobody says by `effects` what they have done.
    """
    handlers = Handlers(participants)
    if handlers.any and effects is None:
        raise ValueError("Say by effects=… what the handlers have done: a function that returns their balances, say.")
    check = _Check(graph_of(saga), input, ledger or Ledger(), handlers, effects, fresh)
    clean = check.clean()
    results = [check.run(case, n) for n, case in enumerate(cases(check.graph, clean.called), start=1)]
    results = [result for result in results if result.struck and not result.goes_another_way(clean)]
    return Report(saga.name, len(results), [found for each in results if (found := _judge(each, clean)) is not None])


@dataclass(frozen=True, slots=True)
class _Result:
    """A run: whether its fault happened, what has changed, and which steps were called."""

    case: Case | None
    struck: bool
    changed: object
    machine: Machine
    called: list[str]

    @property
    def status(self) -> SagaStatus:
        return SagaStatus(self.machine.state.status.name)

    def goes_another_way(self, clean: _Result) -> bool:
        """Tell whether it completed by other steps, as where a rule for errors goes on without one: then the effects of
        the clean run are not those that it should have.
        """
        return self.status is SagaStatus.COMPLETED and self._done != clean._done

    @property
    def _done(self) -> list[bool]:
        return [step.status is StepStatus.SUCCEEDED for step in self.machine.state.steps]

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
            hint = "Give simulated steps their outputs: ledger=Ledger(outputs={…})."
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
        return _Result(case, trial.struck, changed, trial.machine, trial.called)

    def _snapshot(self, books: Books) -> object:
        if self.effects is None:
            return dict(books.effects)
        simulated = any(not self.handlers.have(node.step.participant) for node in self.graph.nodes)
        return {"handlers": self.effects(), "ledger": dict(books.effects)} if simulated else self.effects()


def _judge(result: _Result, clean: _Result) -> Finding | None:
    """Return what is wrong with a run; None if its effects are all or none, as its end says."""
    if result.case is None or (result.status, result.changed) in (
        (SagaStatus.COMPLETED, clean.changed),
        (SagaStatus.COMPENSATED, None),
    ):
        return None
    if result.status is SagaStatus.COMPLETED:
        got, wanted = difference(result.changed, clean.changed)
    else:
        got, wanted = difference(result.changed, None)
        wanted = "nothing" if result.status is SagaStatus.COMPENSATED else "all or nothing"
    return Finding(case=result.case, status=result.status, effects=got, wanted=wanted, journal=result.journal)
