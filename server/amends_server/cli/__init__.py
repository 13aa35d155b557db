"""The command `amends`: runs the orchestrator, starts and repairs sagas, and shows it all in a demo."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import io


def main() -> None:
    """Run the command line of this process."""
    # What gRPC's core writes to stderr on its own is no sentence; what matters of it comes as an error besides.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _open_streams()
    # A terminal that knows no arrows gets all the rest.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    try:
        from amends_server.cli.commands import app  # what only looks into this package need not wait for typer

        app(prog_name="amends")
    except KeyboardInterrupt:  # where no command expects it, as while modules are loaded
        sys.exit(128 + signal.SIGINT)


def _open_streams() -> None:
    """Open what this process was started without: its number would be given to a file or socket, and be written to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # each gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives
