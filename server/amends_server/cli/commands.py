"""The commands by their names. What they need is imported when they run, so that help comes at once."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from amends_server.cli import participants
from amends_server.cli.definitions import definitions
from amends_server.cli.demo.command import demo
from amends_server.cli.exits import EXIT_CODES
from amends_server.cli.group import Commands
from amends_server.cli.orchestrator import simulation
from amends_server.cli.orchestrator.bench import bench
from amends_server.cli.orchestrator.health import health
from amends_server.cli.orchestrator.migrating import migrate
from amends_server.cli.orchestrator.replicas import replicas
from amends_server.cli.orchestrator.restored import restored
from amends_server.cli.orchestrator.serving import SETTINGS, serve
from amends_server.cli.sagas import completion, listing, repairs, sagas, settling

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=f"{EXIT_CODES}\n\nAMENDS_SERVER says where the orchestrator listens, if --server does not.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"amends {version('amends')}")
        raise typer.Exit


@app.callback()
def amends(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run sagas over gRPC: an orchestrator, and what it takes to start, watch and repair sagas."""


app.command(epilog=SETTINGS, rich_help_panel="Orchestrator")(serve)
app.command(rich_help_panel="Orchestrator")(demo)
app.command(rich_help_panel="Orchestrator")(health)
app.command(rich_help_panel="Orchestrator", epilog=EXIT_CODES)(replicas)
app.command(rich_help_panel="Orchestrator")(migrate)
app.command(rich_help_panel="Orchestrator")(restored)
app.command(rich_help_panel="Orchestrator")(bench)
simulation.add_commands(app)
sagas.add_commands(app)
listing.add_commands(app)
completion.add_commands(app)
repairs.add_commands(app)
settling.add_commands(app)
app.add_typer(definitions.make_app(), name="definitions", rich_help_panel="Registry")
app.add_typer(participants.make_app(), name="participants", rich_help_panel="Registry")
