"""The command `amends`: runs the orchestrator, starts and repairs sagas, and shows it all in a demo."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line of this process."""
    # What gRPC's core writes to stderr on its own is no sentence; what matters of it comes as an error besides.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from amends_server.cli.commands import app  # what only looks into this package need not wait for typer

    app(prog_name="amends")
