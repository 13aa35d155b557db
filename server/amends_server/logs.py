"""Logs: structured, one line an event, as text for people or JSON for machines. Payloads never go in (I46)."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import ExcInfo, Processor


def set_up_logs(level: str, form: Literal["text", "json"]) -> None:
    """Send what this process logs from now on to standard error."""
    last: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=_write_exception,
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.ExceptionRenderer(_format_exception)] if form == "json" else []),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(sys.stderr),
        cache_logger_on_first_use=True,
    )


class _Lines(structlog.PrintLogger):
    """Writes lines; one for which there is no room, or that nobody reads any more, is lost and harms nobody.

    Or a full disk would end whatever logs that something has failed, and the keeping of leases with it.
    """

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def stack_of(error: BaseException) -> str:
    """Return what an exception is and where it was raised, and the same of those inside of it and behind it.

    Neither texts nor local variables: both may quote payloads.
    """
    parts = [f"{type(error).__name__}\n", *traceback.format_tb(error.__traceback__)]
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        parts += [f"holds {stack_of(inner)}" for inner in group.exceptions]
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None:
        parts.append(f"after {stack_of(behind)}")
    return "".join(parts)


def _format_exception(exc_info: ExcInfo) -> str:
    return stack_of(exc_info[1])


def _write_exception(to: TextIO, exc_info: ExcInfo) -> None:
    to.write("\n" + stack_of(exc_info[1]))
