"""A saga as people read it: its head, and a table of its steps."""

from __future__ import annotations

import json
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amends.errors import PayloadError
from amends.v1 import payload_pb2, saga_pb2
from amends.views import Data, Problem, SagaView, StepStatus, StepView
from amends_server.cli.output import cell_of, emit, seconds_text, status_text, time_text

PAYLOAD_CHARACTERS_MAX = 300
"""Of a payload in a text; `-o json` has it all."""


def draw_saga(saga: saga_pb2.Saga, console: Console) -> None:
    """Write a saga to a console."""
    view = SagaView.of(saga)
    emit(console, _head(view))
    emit(console, _steps(view))


def payload_text(payload: payload_pb2.Payload) -> str:
    """A payload in a line, cut if it is long."""
    text = "–"
    match payload.WhichOneof("kind"):
        case "json":
            try:
                text = json.dumps(Data(payload).read(object), ensure_ascii=False)
            except PayloadError:
                text = payload.json
        case "message":
            text = f"{payload.message.type_url} ({len(payload.message.value)} bytes)"
        case "opaque":
            text = f"{payload.opaque.content_type or 'opaque'} ({len(payload.opaque.data)} bytes)"
        case None:
            pass
    return text if len(text) <= PAYLOAD_CHARACTERS_MAX else text[: PAYLOAD_CHARACTERS_MAX - 1] + "…"


def _head(view: SagaView) -> Table:
    head = Table.grid(padding=(0, 2, 0, 0))
    rows: list[tuple[str, str | Text]] = [
        ("saga", Text(view.id, style="bold")),
        ("definition", f"{view.definition}@{view.definition_version}"),
        ("status", status_text(view.status) + (" (paused)" if view.paused else "")),
        ("cause", str(view.cause) if view.cause else ""),
        ("stuck", f"{', '.join(view.stuck.steps)}: {view.stuck.error}" if view.stuck else ""),
        ("started", time_text(view.create_time)),
        ("next due", _coming(view, view.due_time)),
        ("deadline", _coming(view, view.deadline_time)),
        ("ended", _ended(view)),
        ("labels", " ".join(f"{key}={value}" for key, value in sorted(view.labels.items()))),
        ("namespace", "" if view.namespace == "default" else view.namespace),
        ("input", payload_text(view.input.payload)),
        ("output", payload_text(view.output.payload) if view.output else ""),
        ("no output", str(Problem.of(view.message.output_error)) if view.message.HasField("output_error") else ""),
    ]
    for name, value in rows:
        if value:
            head.add_row(Text(name, style="dim"), cell_of(value))
    return head


def _coming(view: SagaView, time: datetime | None) -> str:
    """When something is to happen of itself, as long as it may."""
    return time_text(time) if time is not None and view.end_time is None else ""


def _ended(view: SagaView) -> str:
    if view.end_time is None or view.create_time is None:
        return ""
    took_s = (view.end_time - view.create_time).total_seconds()
    return f"{time_text(view.end_time)}, after {seconds_text(took_s)}"


def _steps(view: SagaView) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("STEP", "CALLS", "STATUS", "ATTEMPTS", "TIME", "ERROR"):
        table.add_column(head, overflow="fold")
    for step in view.steps:
        table.add_row(
            cell_of(step.id),
            cell_of(f"{step.participant}.{step.action}"),
            status_text(step.status),
            attempts_text(step.attempts, step.compensation_attempts),
            _took(step),
            cell_of(_errors(step)),
        )
    return table


def attempts_text(attempts: int, compensation_attempts: int) -> Text:
    """How often a step was tried, and its compensation: `2`, or `2, undo 1`."""
    return Text(f"{attempts or '–'}" + (f", undo {compensation_attempts}" if compensation_attempts else ""))


def problem_text(problem: Problem | None) -> str:
    """An error in a line, with who answered so."""
    return str(problem) if problem is not None else ""


def _errors(step: StepView) -> str:
    parts = [problem_text(step.error)]
    if step.compensation_error is not None and step.status is not StepStatus.COMPENSATED:
        parts.append(f"compensation: {problem_text(step.compensation_error)}")
    resolution = step.message.resolution
    if resolution.resolution:
        parts.append(f"settled by {resolution.principal or 'an operator'}: {resolution.reason}")
    return "; ".join(part for part in parts if part)


def _took(step: StepView) -> str:
    if step.start_time is None or step.end_time is None:
        return "–"
    return seconds_text((step.end_time - step.start_time).total_seconds())
