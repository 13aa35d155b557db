"""A saga as it goes: its steps, folded from its events and drawn anew with each, or a line for each event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import Enum, auto

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from amends.client.connection import Connection
from amends.client.events import Event, EventKind
from amends.client.saga import SagaHandle
from amends.v1 import orchestrator_pb2, saga_pb2
from amends.views import SagaStatus, StepStatus
from amends_server.cli.escapes import visible
from amends_server.cli.output import STYLES, as_json, cell_of, emit, make_console, print_json, status_text
from amends_server.cli.sagas.view import attempts_text

STEP_STATUS_AFTER = {
    EventKind.STEP_DISPATCHED: StepStatus.RUNNING,
    EventKind.STEP_SUCCEEDED: StepStatus.SUCCEEDED,
    EventKind.STEP_REFUSED: StepStatus.FAILED,
    EventKind.STEP_GIVEN_UP: StepStatus.UNKNOWN,
    EventKind.STEP_DEFERRED: StepStatus.WAITING,
    EventKind.STEP_SKIPPED: StepStatus.SKIPPED,
    EventKind.COMPENSATION_DISPATCHED: StepStatus.COMPENSATING,
    EventKind.COMPENSATION_SUCCEEDED: StepStatus.COMPENSATED,
    EventKind.COMPENSATION_FAILED: StepStatus.COMPENSATION_FAILED,
}
"""Where a step stands after an event; after others it stands where it stood."""

PASSING = (StepStatus.PENDING, StepStatus.RUNNING, StepStatus.COMPENSATING)
"""Statuses that are left out of a step's way once they are over: each step has them."""


class Manner(Enum):
    """How a saga is shown."""

    LIVE = auto()
    """One table that changes, for terminals."""
    LINES = auto()
    """A line for each event, for pipes and logs."""
    TABLE = auto()
    """The table as it is at the end."""


def manner_of(console: Console) -> Manner:
    """How to show sagas there."""
    return Manner.LIVE if console.is_terminal else Manner.LINES


@dataclass(slots=True)
class Row:
    """A step as far as the events tell: the statuses that it went through, its attempts, and the last error."""

    way: list[StepStatus] = field(default_factory=lambda: [StepStatus.PENDING])
    attempts: int = 0
    compensation_attempts: int = 0
    error: str = ""

    def enter(self, event: Event) -> None:
        if event.kind is EventKind.STEP_DISPATCHED:
            self.attempts = event.attempt or 0
        elif event.kind is EventKind.COMPENSATION_DISPATCHED:
            self.compensation_attempts = event.attempt or 0
        elif event.kind is EventKind.COMPENSATION_OMITTED:
            self.error = "nothing to undo"
        if event.error is not None:
            again = ", to be tried again" if event.kind.endswith("retry_scheduled") else ""
            self.error = f"{event.error}{again}"
        elif event.kind in (EventKind.STEP_SUCCEEDED, EventKind.COMPENSATION_SUCCEEDED) and "tried again" in self.error:
            self.error = ""
        self._go(_status_after(event))

    def _go(self, status: StepStatus | None) -> None:
        if status is None or status is self.way[-1]:
            return
        if self.way[-1] in PASSING:
            self.way.pop()
        self.way.append(status)

    def way_text(self) -> Text:
        return Text(" → ").join(status_text(status) for status in self.way)


class Screen:
    """A saga, folded from its events."""

    def __init__(self, saga_id: str, definition: str, steps: list[str]) -> None:
        self._saga_id = saga_id
        self._definition = definition
        self._rows = {step: Row() for step in steps}
        self._note = ""
        self.status = SagaStatus.PENDING

    def enter(self, event: Event) -> None:
        """Take in the next event."""
        self.status = event.status
        if event.step is not None and event.step in self._rows:
            self._rows[event.step].enter(event)
        self._note = _note(event) or self._note

    def draw(self) -> Table:
        """The saga as it stands."""
        table = Table(
            title=Text.assemble(
                (self._saga_id, "bold"), f"  {self._definition}  ", status_text(self.status), f"  {self._note}"
            ),
            title_justify="left",
            title_style="",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
            header_style="dim",
        )
        for head, width in (("STEP", 12), ("STATUS", 26), ("ATTEMPTS", 9), ("", 20)):
            table.add_column(head, min_width=width, overflow="fold")
        for step, row in self._rows.items():
            table.add_row(
                Text(step), row.way_text(), attempts_text(row.attempts, row.compensation_attempts), cell_of(row.error)
            )
        return table


async def show_live(
    connection: Connection,
    saga: saga_pb2.Saga,
    *,
    console: Console | None = None,
    manner: Manner | None = None,
    pace_s: float = 0,
) -> SagaStatus:
    """Show a saga until it has ended. Returns where it stood then. `pace_s` is how long each event is seen at least."""
    console = console or make_console()
    manner = manner or manner_of(console)
    screen = Screen(saga.saga_id, f"{saga.definition}@{saga.definition_version}", [step.id for step in saga.steps])
    events = SagaHandle[object](connection, saga.saga_id, object).watch()
    if manner is Manner.LIVE:
        await _draw_live(console, screen, events, pace_s)
    else:
        async for event in events:
            screen.enter(event)
            if manner is Manner.LINES:
                emit(console, event_line(event))
        if manner is Manner.TABLE:
            emit(console, screen.draw())
    return screen.status


async def print_events(connection: Connection, saga_id: str, after: int) -> None:
    """Write each event as a JSON document on a line of its own."""
    async for event in SagaHandle[object](connection, saga_id, object).watch(after=after):
        status = saga_pb2.SagaStatus.Value(f"SAGA_STATUS_{event.status}")
        print_json(as_json(orchestrator_pb2.WatchSagaResponse(event=event.message, status=status)), indent=None)


def event_line(event: Event) -> Text:
    """An event for a log: time, sequence, what happened to which step, attempt, error."""
    status = _status_after(event)
    what = str(status) if status else event.kind.replace("_", " ")
    style = STYLES.get(what, "")
    attempt = f"attempt {event.attempt}" if event.attempt else ""
    line = Text.assemble(
        (f"  {event.time:%H:%M:%S.%f}"[:-3], "dim"),
        f"  {event.sequence:>3}  {event.step or event.status:<14}  ",
        (f"{what:<20}", style),
        f"  {attempt:<9}  {visible(str(event.error or _note(event)))}",
    )
    return line


async def _draw_live(console: Console, screen: Screen, events: AsyncGenerator[Event, None], pace_s: float) -> None:
    with Live(screen.draw(), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        async for event in events:
            screen.enter(event)
            live.update(screen.draw(), refresh=True)
            await (asyncio.sleep(pace_s) if pace_s else asyncio.sleep(0))


def _status_after(event: Event) -> StepStatus | None:
    if event.kind is EventKind.STEP_RESOLVED:
        resolution = event.message.step_resolved.resolution
        return StepStatus(saga_pb2.StepResolution.Name(resolution).removeprefix("STEP_RESOLUTION_"))
    return STEP_STATUS_AFTER.get(event.kind)


def _note(event: Event) -> str:
    """What there is to say of the saga as a whole."""
    if event.cause is not None:
        return f"because of step {event.cause.step}" if event.cause.step else str(event.cause)
    return event.reason
