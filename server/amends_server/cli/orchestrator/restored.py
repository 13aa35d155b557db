"""The command that is given once after a store was restored from a backup, before orchestrators run on it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import CommandError, run
from amends_server.cli.orchestrator.serving import Config, read_settings
from amends_server.cli.output import print_line

if TYPE_CHECKING:
    from amends_server.config import Settings


def restored(
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="The store, as for `amends serve`.")
    ] = None,
    config: Config = None,
) -> None:
    """Say that the store was restored from a backup, so that it may know less than the participants.

    Each saga that is not final is then taken for one that may have gone further than its journal says. Needs a store
    that no orchestrator has in use, or a PostgreSQL database. Given twice it does no harm.

    Exit codes: 0 done; 1 the store cannot be used; 2 wrong usage or settings.
    """
    run(_restored(read_settings(None, store, config)))


async def _restored(settings: Settings) -> None:
    from amends_server.app import StartError, begin_incarnation

    try:
        epoch = await begin_incarnation(settings)
    except StartError as error:
        raise CommandError(str(error)) from None
    print_line(f"A new incarnation has begun: epochs go on from {epoch}. Orchestrators can be started.")
