"""Commands for participants: list, add, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from amends_server.cli.exits import EXIT_CODES, run
from amends_server.cli.group import Group
from amends_server.cli.options import ADDRESS, COUNT_MAX, Form, Output, Server
from amends_server.cli.output import print_line, print_message, print_table, time_text

Name = Annotated[str, typer.Argument(metavar="NAME", help="What definitions call it.", show_default=False)]


def make_app() -> typer.Typer:
    """The group of these commands."""
    app = typer.Typer(cls=Group, no_args_is_help=True, help="List, add and remove the participants that sagas call.")
    for command in (list_, add, remove):
        app.command(command.__name__.rstrip("_"), epilog=EXIT_CODES)(command)
    return app


def list_(server: Server = ADDRESS, form: Output = Form.TEXT) -> None:
    """List participants with their addresses and actions."""

    async def listed() -> None:
        from amends.client.connection import pages
        from amends.v1 import operator_pb2 as pb
        from amends_server.cli.connect import connected

        found = pb.ListParticipantsResponse()
        async with connected(server) as connection:

            async def fetch(token: str) -> pb.ListParticipantsResponse:
                return await connection.once(
                    connection.operator.ListParticipants, pb.ListParticipantsRequest(page_token=token)
                )

            async for page in pages(fetch):
                found.participants.extend(page.participants)
        if form is Form.JSON:
            print_message(found)
            return
        rows = [
            (
                each.name,
                each.address,
                ", ".join(action.name for action in each.actions) if each.described else "(did not describe itself)",
                "settings" if each.fixed else time_text(each.update_time),
            )
            for each in found.participants
        ]
        print_table(("PARTICIPANT", "ADDRESS", "ACTIONS", "REGISTERED"), rows, "No participants.")

    run(listed(), server)


def add(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where it listens.", show_default=False)],
    concurrency_max: Annotated[
        int,
        typer.Option(
            "--concurrency-max", min=0, max=COUNT_MAX, help="How many calls it takes at a time; 0: server's default."
        ),
    ] = 0,
    server: Server = ADDRESS,
    form: Output = Form.TEXT,
) -> None:
    """Register a participant, or change where it listens."""

    async def added() -> None:
        from amends.v1 import operator_pb2 as pb
        from amends_server.cli.connect import checked_address, connected

        at = str(checked_address(address, "participant"))
        participant = pb.Participant(name=name, address=at, concurrency_max=concurrency_max)
        async with connected(server) as connection:
            request = pb.PutParticipantRequest(participant=participant)
            response = await connection.once(connection.operator.PutParticipant, request)
        if form is Form.JSON:
            print_message(response)
            return
        put = response.participant
        actions = ", ".join(action.name for action in put.actions)
        print_line(
            f"{put.name} at {put.address}: "
            + (actions if put.described else "it does not answer now; it is registered")
        )

    run(added(), server)


def remove(name: Name, server: Server = ADDRESS, form: Output = Form.TEXT) -> None:
    """Remove a participant that no unfinished saga needs."""

    async def removed() -> None:
        from amends.v1 import operator_pb2 as pb
        from amends_server.cli.connect import connected

        async with connected(server) as connection:
            response = await connection.once(
                connection.operator.DeleteParticipant, pb.DeleteParticipantRequest(name=name)
            )
        if form is Form.JSON:
            print_message(response)
        else:
            print_line(f"{name} removed")

    run(removed(), server)
