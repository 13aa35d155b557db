"""`amends simulate`: a definition in seeded worlds where everything that may fail does."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer

from amends_server.cli.exits import EXIT_CODES, CommandError, interruptible, run, usage_error
from amends_server.cli.options import DefinitionFile, read_json
from amends_server.cli.output import print_line

SEEDS = 200
"""A few seconds."""


def add_commands(app: typer.Typer) -> None:
    app.command(epilog=EXIT_CODES, rich_help_panel="Orchestrator")(simulate)


def simulate(
    file: DefinitionFile,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="How many worlds.")] = SEEDS,
    first: Annotated[int, typer.Option("--first", metavar="N", min=0, help="The first of them.")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Tell the story of this one.", show_default=False)
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="JSON", help="The sagas' input: JSON, @FILE, or - for stdin.", show_default=False
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            "--outputs", metavar="JSON", help="What steps give: an object by step id, or @FILE.", show_default=False
        ),
    ] = None,
) -> None:
    """Run sagas of a definition in simulated worlds, with simulated participants, where everything fails now and then.

    Needs no server, and calls nobody. Says how the sagas ended and what they met. The exit code is 1 if a promise was
    broken; the story of that world is then told, without what did not matter. The same seed is the same world.
    """

    async def simulated() -> None:
        from amends.errors import DefinitionError
        from amends.testing.simulation.users import simulate as simulate_all
        from amends.testing.simulation.users import tell
        from amends_server.cli.definitions.files import read_definition

        definition = read_definition(file)
        given, gives = _value(input, "--input"), _outputs(_value(outputs, "--outputs"))
        try:
            with interruptible():
                if seed is not None:
                    outcome = tell(definition, seed, given, gives)
                    lines, violation = outcome.lines, outcome.violation
                else:
                    result = simulate_all(definition, given, outputs=gives, seeds=seeds, first=first)
                    lines = str(result).split("\n")
                    violation = "" if result.ok else f"tell it again with --seed {result.failed}"
        except (DefinitionError, ValueError) as error:
            raise usage_error(_with_options(str(error))) from None
        for line in lines:
            print_line(line)
        if violation:
            raise CommandError(f"A promise was broken: {violation}.")

    run(simulated(), "")


def _value(text: str | None, option: str) -> object:
    read = read_json(text, option)
    return None if read is None else json.loads(read)


def _outputs(value: object) -> dict[str, object] | None:
    if value is not None and not isinstance(value, dict):
        raise usage_error("--outputs must be an object: the outputs of steps by their ids.")
    return cast("dict[str, object] | None", value)


def _with_options(text: str) -> str:
    """A sentence about arguments of `amends.testing.simulate`, with options in their place."""
    return text.replace("`input`", "--input").replace("`outputs`", "--outputs")
