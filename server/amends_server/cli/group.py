"""The command line as a whole: how it ends when it was used in a wrong way, for people and for programs."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from amends_server.cli.exits import INTERRUPTED, CommandError, Exit, errors_as_json, fail, usage_error

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_LINE_END = re.compile(r"(?<!\n)\n(?!\n)")


@runtime_checkable
class _WrongUsage(Protocol):
    """What typer raises; its name for it is its own."""

    ctx: typer.Context | None
    exit_code: int

    def format_message(self) -> str: ...


class Group(TyperGroup):
    """Fills the paragraphs of its commands' help to the width of the terminal: typer fills the first one only."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None if there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help is not None:
            command.help = _LINE_END.sub(" ", command.help)
        return command


class Commands(Group):
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
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                _drop_output()
                fail(CommandError(f"The output cannot be written ({error.strerror}): make room, or send it elsewhere."))
            except Exception as error:
                if not isinstance(error, _WrongUsage):
                    raise
                _say(error)
        except typer.Exit as end:
            sys.exit(end.exit_code)


def _drop_output() -> None:
    """Have what was not written of standard output go nowhere: the end of the process would try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(error: _WrongUsage) -> NoReturn:
    what = " ".join(error.format_message().split()).replace("Value error, ", "")
    if not what:  # a group without a command has shown its help already
        print()
        raise typer.Exit(Exit.USAGE)
    help_ = f"`{error.ctx.command_path} --help`" if error.ctx is not None else "its --help"
    end, see = ("? ", "See") if what.endswith("?") else (": ", "see")
    next_ = f"{see} {help_}."
    fail(usage_error(f"{what.rstrip('.?')}{end}{next_}", next_=next_))


def _wants_json(args: Sequence[str]) -> bool:
    """Tell whether the answer is to be JSON, also where the command line cannot be read as a whole."""
    joined = {f"{option}={value}" for option, value in pairwise(args)}.union(args)
    return not joined.isdisjoint({"-o=json", "-ojson", "--format=json"})
