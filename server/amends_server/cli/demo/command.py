"""The command that shows it all."""

from __future__ import annotations

from typing import Annotated

import typer

from amends_server.cli.exits import run


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running until Ctrl-C, and say what to type next.")
    ] = False,
) -> None:
    """Run an orchestrator and a shop, let four orders go well and wrong, and check that stock and balances add up.

    Needs a clone of the repository, where the shop is. Sagas and ledgers go to a temporary folder.

    Exit codes: 0 it all adds up; 1 it does not, or it could not be run.
    """

    async def shown() -> None:
        from amends_server.cli.demo.demo import run_demo

        await run_demo(keep=keep)

    run(shown())
