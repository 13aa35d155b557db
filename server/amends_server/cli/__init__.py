"""The command `amends`: runs the orchestrator, starts and repairs sagas, and shows it all in a demo."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process."""
    from amends_server.cli.commands import app  # what only looks into this package need not wait for typer

    app(prog_name="amends")
