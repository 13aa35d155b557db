"""Short ways to write definitions, and a saga that is driven by hand with every decision checked against its fold."""

from __future__ import annotations

from typing import Any

from amends_server.engine.checks.validation import check
from amends_server.engine.commands import (
    Cancel,
    Command,
    Pause,
    Refused,
    Resolve,
    Resume,
    Retry,
    Settle,
    Succeeded,
    Unknown,
    Verdict,
)
from amends_server.engine.decide import decide, start
from amends_server.engine.definition import Compensation, Definition, Kind, Step, digest
from amends_server.engine.events import Event, Resolution, SagaStarted
from amends_server.engine.evolve import fold
from amends_server.engine.graph import Graph, build_graph
from amends_server.engine.payload import Error, Json
from amends_server.engine.policy import Retry as RetryPolicy
from amends_server.engine.policy import Time
from amends_server.engine.state import State

START: Time = 1_000_000
ONCE = RetryPolicy(attempts_max=1)
NO_JITTER = RetryPolicy(attempts_max=3, interval_us=100, jitter=0)
NO = Error("NO", "No.", "participant")
TIMEOUT = Error("TIMEOUT", "No answer came in time.")


def compensatable(step_id: str, *after: str, **more: Any) -> Step:
    """A step with a compensation; one attempt each unless said otherwise."""
    more = {"compensation": Compensation(retry=ONCE), "retry": ONCE} | more
    return Step(id=step_id, participant="p", action="do", after=after, **more)


def pivot(step_id: str, *after: str, **more: Any) -> Step:
    return Step(id=step_id, participant="p", action="do", after=after, kind=Kind.PIVOT, **({"retry": ONCE} | more))


def retriable(step_id: str, *after: str, **more: Any) -> Step:
    return Step(id=step_id, participant="p", action="do", after=after, kind=Kind.RETRIABLE, **({"retry": ONCE} | more))


def define(*steps: Step, **more: Any) -> Definition:
    return Definition(name="test", steps=steps, **more)


def graph_of(definition: Definition) -> Graph:
    assert check(definition) == []
    return build_graph(definition, digest(definition))


def started(graph: Graph, saga_id: str = "s", text: str | None = '{"x":1}', at: Time = START) -> SagaStarted:
    deadline_us = graph.definition.deadline_us
    return SagaStarted(
        time=at,
        namespace="n",
        saga_id=saga_id,
        definition_digest=graph.digest,
        input=None if text is None else Json(text),
        deadline=None if deadline_us is None else at + deadline_us,
    )


class Run:
    """A saga, its journal and the clock."""

    def __init__(self, *steps: Step, **more: Any) -> None:
        self.graph = graph_of(define(*steps, **more))
        self.now = START
        self.journal, self.state = start(self.graph, started(self.graph))
        self.last = self.journal

    def do(self, command: Command, after_us: int = 0) -> list[Event]:
        self.now += after_us
        self.last, self.state = decide(self.state, command, self.now)
        self.journal = [*self.journal, *self.last]
        assert fold(self.graph, self.journal) == self.state
        assert self.state.sequence == len(self.journal)
        return self.last

    def settle(self, step: str, verdict: Verdict, *, after_us: int = 1) -> list[Event]:
        """Answer the open action of a step."""
        return self.do(Settle(step, False, self.state.step(step).action.attempts, verdict), after_us)

    def undo(self, step: str, verdict: Verdict) -> list[Event]:
        """Answer the open compensation of a step."""
        return self.do(Settle(step, True, self.state.step(step).compensation.attempts, verdict))

    def done(self, step: str) -> list[Event]:
        return self.settle(step, Succeeded(Json('{"n":1}')))

    def refused(self, step: str) -> list[Event]:
        return self.settle(step, Refused(NO))

    def lost(self, step: str, *, again: bool = True) -> list[Event]:
        return self.settle(step, Unknown(TIMEOUT, again))

    def undone(self, step: str) -> list[Event]:
        return self.undo(step, Succeeded())

    def undo_refused(self, step: str) -> list[Event]:
        return self.undo(step, Refused(NO))

    def undo_lost(self, step: str) -> list[Event]:
        return self.undo(step, Unknown(TIMEOUT))

    def cancel(self) -> list[Event]:
        return self.do(Cancel("test", "op"))

    def pause(self) -> list[Event]:
        return self.do(Pause("test", "op"))

    def resume(self) -> list[Event]:
        return self.do(Resume("test", "op"))

    def retry(self) -> list[Event]:
        return self.do(Retry("test", "op"))

    def resolve(self, step: str, resolution: Resolution) -> list[Event]:
        return self.do(Resolve(step, resolution, None, "test", "op"))

    def open_calls(self) -> set[str]:
        """The calls in flight, as `A(step)` and `C(step)`."""
        return open_calls(self.state)


def open_calls(state: State) -> set[str]:
    calls: set[str] = set()
    for node, step in zip(state.graph.nodes, state.steps, strict=True):
        calls |= {f"A({node.step.id})"} if step.action.open else set()
        calls |= {f"C({node.step.id})"} if step.compensation.open else set()
    return calls


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]
