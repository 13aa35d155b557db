"""The options that several commands have, and how their values are read."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from amends_server.cli.exits import CommandError, interruptible, usage_error

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

ADDRESS = "127.0.0.1:7242"
"""Where an orchestrator listens if nobody says otherwise."""

NAMESPACE = "default"

COUNT_MAX = 1_000_000
"""Of anything that is counted on the command line: far above what the orchestrator does at a time."""

DURATION_S_MAX = 36_500 * 86_400
"""What the orchestrator takes."""

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Form(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="AMENDS_SERVER",
        metavar="HOST:PORT,…",
        help="Where the orchestrator listens, or those that share a database do.",
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", metavar="NAME", help="The namespace of sagas and definitions.")]
Output = Annotated[
    Form,
    typer.Option(
        "--format", "-o", help="json: the orchestrator's answer as a JSON document on stdout, and errors so on stderr."
    ),
]
DefinitionFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="YAML or JSON in the shape of amends.v1.Definition.", show_default=False),
]
Reference = Annotated[
    str, typer.Argument(metavar="DEFINITION", help="NAME, NAME@VERSION or sha256:…", show_default=False)
]
SagaId = Annotated[str, typer.Argument(metavar="SAGA", help="The id of a saga.", show_default=False)]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why; kept in the saga's journal. Asked for if it is missing."),
]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label. May be repeated.")]
Wait = Annotated[bool, typer.Option("--wait", help="Answer when the saga has ended, or needs an operator.")]


def need_reason(reason: str | None) -> str:
    """The reason that was given, or the one that a person at a terminal gives now."""
    if reason is None and sys.stdin.isatty() and sys.stderr.isatty():
        reason = typer.prompt("Reason", err=True)
    if not (reason or "").strip():
        raise usage_error("Say why with --reason TEXT: it is kept in the saga's journal, with who did it.")
    return str(reason)


def read_labels(labels: Iterable[str] | None, option: str = "--label ") -> dict[str, str]:
    """Labels by their keys."""
    read: dict[str, str] = {}
    for label in labels or ():
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise usage_error(f"`{label}` is no label: write {option}KEY=VALUE.")
        if key in read:
            raise usage_error(f"The label `{key}` is given twice: leave one of them out.")
        read[key] = value
    return read


def read_duration(text: str | None, option: str) -> float | None:
    """A length of time in seconds; None if there is none."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise usage_error(f"{option} cannot be `{text}`: write a number and ms, s, m, h or d, for example 90s or 2h.")
    duration_s = float(match[1]) * _UNITS_S[match[2]]
    if duration_s > DURATION_S_MAX:
        raise usage_error(f"{option} cannot be `{text}`: it must be 36500d or less, which are 100 years.")
    return duration_s


def read_time(text: str | None, option: str) -> Timestamp | None:
    """A moment; None if there is none."""
    from google.protobuf.timestamp_pb2 import Timestamp

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("it has no time zone")
        stamp = Timestamp()
        stamp.FromDatetime(time)
    except (ValueError, OverflowError):
        raise usage_error(
            f"{option} cannot be `{text}`: write a date, a time and its zone, for example 2031-05-01T08:00:00Z."
        ) from None
    return stamp


def read_json(text: str | None, option: str) -> str | None:
    """A JSON text: the value of the option itself, of the file in `@FILE`, or of stdin with `-`. It is checked here.

    :raises CommandError: with the place of what is wrong.
    """
    if text is None:
        return None
    if text == "-":
        with interruptible():
            return _checked(sys.stdin.read(), "stdin")
    if text.startswith("@"):
        return _checked(read_text(Path(text[1:])), text[1:])
    return _checked(text, option)


def _checked(text: str, source: str) -> str:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise json_error(source, text, error) from None
    return text


def json_error(source: str, text: str, error: ValueError | RecursionError) -> CommandError:
    """What to raise for a text that is no JSON: it names the place."""
    if not isinstance(error, json.JSONDecodeError):
        return usage_error(f"{source} is not valid JSON: {error}.")
    if not text.strip():
        return usage_error(f"{source} is not valid JSON: it is empty.")
    lines = text.splitlines()
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
    near = line[max(0, error.colno - 11) : error.colno + 10].strip()
    place = f"line {error.lineno}, column {error.colno}" + (f", near `{near}`" if near else "")
    return usage_error(f"{source} is not valid JSON at {place}: {error.msg}.")


def read_text(path: Path) -> str:
    """The text of a file that the command line names."""
    try:
        with interruptible():
            return path.read_text(encoding="utf-8")
    except OSError as error:
        raise usage_error(f"{path} cannot be read ({error.strerror}): check its name.") from None
    except UnicodeDecodeError:
        raise usage_error(f"{path} cannot be read: it is no UTF-8 text.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
