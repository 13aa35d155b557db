"""How steps have ended, told from the journal alone, and whether those that read it were told the same."""

from __future__ import annotations

import re

from amends_server.engine.events import (
    AttemptWithdrawn,
    CompensationDispatched,
    Event,
    Resolution,
    StepDeferred,
    StepDispatched,
    StepGivenUp,
    StepOutputRefused,
    StepRefused,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepSucceeded,
)
from amends_server.engine.graph import Graph
from amends_server.engine.payload import Error, Json, Payload

WHEN_FINE = re.compile(r"steps\.(\w+)\.error == null")
READS_ERROR = re.compile(r"\$\{steps\.(\w+)\.error\}")


class Endings:
    """The errors that steps ended with; a step that has succeeded has none, whatever its attempts had before."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._errors: dict[str, Error] = {}
        self._tried: dict[str, Error] = {}  # those of attempts that are made again
        self._work: dict[str, bool] = {}  # whose participants are at work, and whether they are being asked

    def forget(self, steps: list[str]) -> None:
        """Take it that these begin again."""
        for step in steps:
            self._errors.pop(step, None)
            self._tried.pop(step, None)
            self._work.pop(step, None)

    def see(self, event: Event) -> None:
        """Take one more event, and assert that it follows from how the steps before ended."""
        match event:
            case StepRetryScheduled(refused=False) if self._work.get(event.step):
                self._work[event.step] = False  # a question is lost, and the work goes on
            case StepRefused() | StepGivenUp() | StepOutputRefused():
                self._errors[event.step] = event.error
                self._work.pop(event.step, None)
            case StepRetryScheduled():
                self._tried[event.step] = event.error
                self._work.pop(event.step, None)
            case StepDeferred():
                self._tried.pop(event.step, None)
                self._work[event.step] = False
            case StepDispatched() | AttemptWithdrawn(compensation=False) if event.step in self._work:
                self._work[event.step] = isinstance(event, StepDispatched)
            case StepSucceeded():
                self._errors.pop(event.step, None)
            case StepResolved(resolution=Resolution.SUCCEEDED):
                self._errors.pop(event.step, None)
            case StepResolved(resolution=Resolution.SKIPPED) if event.step in self._tried:
                self._errors.setdefault(event.step, self._tried[event.step])
            case StepSkipped():
                assert self._is_fine(event.step) is not True, f"{event!r}, and the step before has succeeded"
            case StepDispatched(attempt=1):
                assert self._is_fine(event.step) is not False, f"{event!r}, and the step before has failed"
                self._check(event, self._graph.node(event.step).step.input_template, event.input)
            case CompensationDispatched(attempt=1):
                compensation = self._graph.node(event.step).step.compensation
                self._check(event, compensation.template if compensation else None, event.arguments)
            case _:
                pass

    def _is_fine(self, step: str) -> bool | None:
        """Tell whether the step may run that runs if another has no error; None if it says nothing of the kind."""
        match = WHEN_FINE.fullmatch(self._graph.node(step).step.when or "")
        return match[1] not in self._errors if match else None

    def _check(self, event: Event, template: str | None, made: Payload | None) -> None:
        match = READS_ERROR.search(template or "")
        if match is not None:
            assert isinstance(made, Json)
            told = '"code"' in made.text
            assert told == (match[1] in self._errors), f"{event!r}, and `{match[1]}` ended otherwise"
