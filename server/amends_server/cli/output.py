"""What commands print: one JSON document for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from amends_server.cli.escapes import Escaping, visible

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

WIDE = 160
"""Columns where there is no terminal: wide enough that no line of a usual table is cut for `grep`."""

_C1 = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}

STYLES = {
    "PENDING": "dim",
    "RUNNING": "cyan",
    "WAITING": "cyan",
    "SUCCEEDED": "green",
    "COMPLETED": "bold green",
    "COMPENSATING": "yellow",
    "COMPENSATED": "yellow",
    "SKIPPED": "dim",
    "FAILED": "red",
    "UNKNOWN": "magenta",
    "STUCK": "bold magenta",
    "COMPENSATION_FAILED": "bold red",
}
"""Of the statuses of sagas and steps."""


def make_console() -> Console:
    """Where people read: standard output, at its own width if it is a terminal."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE, color_system=None)
    console.push_render_hook(Escaping())
    return console


def as_json(message: Message) -> dict[str, object]:
    """A message in protobuf's JSON mapping, with the fields that are empty: scripts find what they look for."""
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(message, always_print_fields_with_no_presence=True))


def print_json(document: object, *, indent: int | None = 2) -> None:
    """Write a JSON document to standard output."""
    sys.stdout.write(json_text(document, indent=indent) + "\n")
    sys.stdout.flush()


def json_text(document: object, *, indent: int | None = None) -> str:
    """A JSON document as a text that steers no terminal: JSON itself escapes only half of the control characters.

    Where not every character can be written, those beyond ASCII are escaped.
    """
    plain = sys.stdout.encoding.lower() != "utf-8"
    return json.dumps(document, indent=indent, ensure_ascii=plain).translate(_C1)


def print_message(message: Message) -> None:
    """Write an answer of the orchestrator as JSON to standard output."""
    print_json(as_json(message))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str | Text]], nothing: str) -> None:
    """Write a table to standard output; `nothing` if it has no rows."""
    console = make_console()
    if not rows:
        console.print(nothing, style="dim", markup=False)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(cell_of(cell) for cell in row))
    emit(console, table)


def cell_of(text: str | Text) -> Text:
    """What stands in a table: escaped before it is laid out, which goes by line ends and drops some characters."""
    return Text(visible(text)) if isinstance(text, str) else text


def emit(console: Console, shown: RenderableType) -> None:
    """Write to a console, without the spaces at the ends of lines if it is no terminal."""
    if console.is_terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        console.file.write(line.rstrip() + "\n")
    console.file.flush()


def print_line(text: str) -> None:
    """Write a line to standard output."""
    print(visible(text), flush=True)


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STYLES.get(status, ""))


def time_text(time: datetime | Timestamp | None) -> str:
    """A time to the second, in UTC."""
    if time is None:
        return "–"
    when = time if isinstance(time, datetime) else time.ToDatetime(tzinfo=UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}Z"


def seconds_text(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
