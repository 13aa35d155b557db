"""The command line as a whole: how it ends when it was used in a wrong way, for people and for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from amends_server.cli.exits import INTERRUPTED, Exit, errors_as_json, fail, usage_error


@runtime_checkable
class _WrongUsage(Protocol):
    """What typer raises; its name for it is its own."""

    ctx: typer.Context | None
    exit_code: int

    def format_message(self) -> str: ...


class Commands(TyperGroup):
    """Says what is wrong with a command line in a sentence, as everything else that goes wrong."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command line, and end the process."""
        given = sys.argv[1:] if args is None else list(args)
        errors_as_json.set(_wants_json(given))
        try:
            try:
                sys.exit(super().main(given, prog_name, complete_var, False, windows_expand_args, **extra))
            except typer.Abort:  # somebody left a question unanswered
                sys.exit(INTERRUPTED)
            except Exception as error:
                if not isinstance(error, _WrongUsage):
                    raise
                _say(error)
        except typer.Exit as end:
            sys.exit(end.exit_code)


def _say(error: _WrongUsage) -> NoReturn:
    what = " ".join(error.format_message().split())
    if not what:  # a group without a command has shown its help already
        print()
        raise typer.Exit(Exit.USAGE)
    help_ = f"`{error.ctx.command_path} --help`" if error.ctx is not None else "its --help"
    end = "? See" if what.endswith("?") else ": see"
    fail(usage_error(f"{what.rstrip('.?')}{end} {help_}."))


def _wants_json(args: Sequence[str]) -> bool:
    """Tell whether the answer is to be JSON, also where the command line cannot be read as a whole."""
    joined = {f"{option}={value}" for option, value in pairwise(args)}.union(args)
    return not joined.isdisjoint({"-o=json", "-ojson", "--format=json"})
