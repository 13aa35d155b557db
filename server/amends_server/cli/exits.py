"""How commands end: exit codes, and errors as one sentence that says what to do next."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from amends_server.cli.escapes import visible
from amends_server.cli.output import json_text

if TYPE_CHECKING:
    from amends.errors import RpcError

T = TypeVar("T")

INTERRUPTED = 130
"""What shells take for the end by Ctrl-C."""


class Exit(IntEnum):
    """What the exit code of a command tells."""

    DONE = 0
    REFUSED = 1
    """The orchestrator refused, or what was asked for could not be done. `health`: it does not serve."""
    USAGE = 2
    """The command line or a file given there is wrong; nothing was asked of the orchestrator."""
    UNREACHABLE = 3
    """No orchestrator answered."""
    NOT_COMPLETED = 4
    """The saga that was waited for ended otherwise than it was meant to."""


EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed; 2 wrong usage or input; 3 no orchestrator answers; "
    "4 the saga that was waited for did not end as it was meant to; 130 interrupted."
)

_COMMANDS = {
    "RegisterDefinition": "`amends definitions register FILE`",
    "ListDefinitions": "`amends definitions list`",
    "ListSagas": "`amends list`",
    "ListParticipants": "`amends participants list`",
    "PutParticipant": "`amends participants add NAME HOST:PORT`",
    "RetrySaga": "`amends retry`",
    "ResolveStep": "`amends resolve`",
    "FailSaga": "`amends fail`",
    "ResumeSaga": "`amends resume`",
    "CancelSaga": "`amends cancel`",
}
"""The orchestrator's sentences name its methods; people at a shell have commands."""

_METHOD = re.compile(rf"\b({'|'.join(_COMMANDS)})\b")


errors_as_json: ContextVar[bool] = ContextVar("errors_as_json", default=False)
"""Whether whoever gave the command reads JSON."""

_BETWEEN = re.compile(r"(?:: |; |\. )(?=[^`]*(?:`[^`]*`[^`]*)*$)")
"""What stands between what is wrong and what to do next, outside of what is quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the orchestrator says of an error, for programs: gRPC's status, its reason, and what it is about."""

    status: str = ""
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    violations: Mapping[str, str] = field(default_factory=dict[str, str])


class CommandError(Exception):
    """A command cannot go on. The text is for people; `code` is what the process exits with.

    `next_` is the end of the text that says what to do, where that cannot be told from the text.
    """

    def __init__(
        self, text: str, code: Exit = Exit.REFUSED, refusal: Refusal | None = None, *, next_: str = ""
    ) -> None:
        super().__init__(text)
        self.code = code
        self.refusal = refusal or Refusal()
        self._next = next_

    @property
    def as_json(self) -> dict[str, object]:
        """For `-o json`. `message` is the whole text, and `next` what of it says what to do."""
        text, refusal = str(self), self.refusal
        between = _BETWEEN.search(text)
        next_ = self._next or (text[between.end() :] if between else text)
        return {
            "code": refusal.status or self.code.name,
            "reason": refusal.reason or self.code.name,
            "message": text,
            "next": next_,
            "metadata": dict(refusal.metadata),
            "violations": [{"field": name, "description": said} for name, said in refusal.violations.items()],
        }


def usage_error(text: str, *, next_: str = "") -> CommandError:
    """What to raise for input that is wrong in itself."""
    return CommandError(text, Exit.USAGE, next_=next_)


def fail(error: CommandError) -> NoReturn:
    """Say what went wrong on standard error, and end the command."""
    if errors_as_json.get():
        print(json_text({"error": error.as_json}), file=sys.stderr)
    else:
        for line in str(error).splitlines():
            print(f"amends: {visible(line)}", file=sys.stderr)
    raise typer.Exit(error.code)


def note(document: Mapping[str, str], text: str) -> None:
    """Say on standard error what is good to know while the command goes on."""
    print(json_text(dict(document)) if errors_as_json.get() else f"amends: {visible(text)}", file=sys.stderr)


def run(work: Coroutine[Any, Any, T], server: str = "") -> T:
    """Do the work of a command. What the orchestrator at `server` refuses is said in a sentence."""
    from amends._loop import run as run_loop
    from amends.errors import AmendsError, RpcError

    try:
        return run_loop(work)
    except CommandError as error:
        fail(error)
    except RpcError as error:
        fail(_explained(error, server))
    except AmendsError as error:
        fail(CommandError(str(error)))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def interruptible() -> Generator[None]:
    """Have Ctrl-C end at once what blocks inside: an event loop would note it, and act on it at its next turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _explained(error: RpcError, server: str) -> CommandError:
    from amends.errors import Unimplemented

    explained = _explained_alone(error, server)
    if error.saga_id and explained.code is Exit.UNREACHABLE and not isinstance(error, Unimplemented):
        again = f"Whether the saga was started is not known: do it again with --id {error.saga_id}, which is harmless."
        return CommandError(f"{explained}\n{again}", explained.code, explained.refusal)
    return explained


def _explained_alone(error: RpcError, server: str) -> CommandError:
    from amends.errors import Cancelled, DeadlineExceeded, NotFound, Unavailable, Unimplemented

    if isinstance(error, Unimplemented | NotFound) and not error.reason:  # NOT_FOUND: of health checks
        return CommandError(
            f"What listens at {server} is no orchestrator, or not of this version: say where one listens with --server "
            "HOST:PORT or AMENDS_SERVER.",
            Exit.UNREACHABLE,
            Refusal(status=error.code.name),
        )
    # A server that stops says CANCELLED to what it has not looked at.
    if isinstance(error, Unavailable | Cancelled) and not error.reason:
        return CommandError(
            f"No orchestrator answers at {server}: start one with `amends serve`, or say where it listens with "
            "--server HOST:PORT or AMENDS_SERVER.",
            Exit.UNREACHABLE,
            Refusal(status=error.code.name),
        )
    if isinstance(error, DeadlineExceeded):
        text = (
            f"Nothing answered in time at {server}: look whether an orchestrator listens there, and is busy, then what "
            "was done, and try again."
        )
        return CommandError(text, Exit.UNREACHABLE, Refusal(status=error.code.name))
    violations = {each.field: with_commands(each.description) for each in error.violations}
    refusal = Refusal(status=error.code.name, reason=error.reason, metadata=error.metadata, violations=violations)
    if error.violations:
        text = "\n".join(f"{_field(each.field)}{with_commands(each.description)}" for each in error.violations)
    else:
        text = with_commands(str(error))
    return CommandError(text, Exit.REFUSED, refusal)


def _field(field: str) -> str:
    return f"{field}: " if field else ""


def with_commands(text: str) -> str:
    """A sentence of the orchestrator, with commands in the place of its methods."""
    return _METHOD.sub(lambda match: _COMMANDS[match[0]], text)
