"""The command that brings a store up to date before an orchestrator needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import CommandError, run
from amends_server.cli.options import Form
from amends_server.cli.orchestrator.serving import read_settings
from amends_server.cli.output import print_json, print_line

if TYPE_CHECKING:
    from amends_server.config import Settings


def migrate(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="Which store: that of `amends serve`, from the same settings."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings as TOML, as for `amends serve`."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    form: Annotated[
        Form, typer.Option("--format", "-o", help="json: a document on stdout, and errors so.")
    ] = Form.TEXT,
) -> None:
    """Bring the tables of a store up to date, as `amends serve` does at its start, without serving.

    Exit codes: 0 it is up to date, or it was said what is to be done; 1 it cannot be; 2 wrong usage or settings.
    """
    run(_migrate(read_settings(None, store, config), form, dry_run=dry_run))


async def _migrate(settings: Settings, form: Form, *, dry_run: bool) -> None:
    from amends_server.app import StartError, make_store
    from amends_server.config import without_password
    from amends_server.store.protocol import StoreError

    try:
        store = make_store(settings)
        found = [f"{each.number:04}_{each.name}" for each in await store.pending()]
        if found and not dry_run:
            await store.open()
            await store.close()
    except (StartError, StoreError) as error:
        raise CommandError(str(error)) from None
    place = without_password(settings.store)
    if form is Form.JSON:
        print_json({"store": place, "migrations": found, "dry_run": dry_run}, indent=None)
    elif not found:
        print_line(f"{place} is up to date")
    else:
        print_line(f"{place} {'needs' if dry_run else 'was brought up to date:'} {', '.join(found)}")
