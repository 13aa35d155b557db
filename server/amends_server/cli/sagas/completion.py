"""The command that says how a step ended whose participant answered IN_PROGRESS."""

from __future__ import annotations

from typing import Annotated

import typer

from amends_server.cli.exits import EXIT_CODES, run, usage_error
from amends_server.cli.options import ADDRESS, NAMESPACE, Form, Namespace, Output, SagaId, Server, read_json


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog=EXIT_CODES, rich_help_panel="Sagas")(complete)


def complete(
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The id of the step.", show_default=False)],
    token: Annotated[
        str,
        typer.Option(
            "--token",
            envvar="AMENDS_COMPLETION_TOKEN",
            metavar="TOKEN",
            help="What the participant got with the call, as completion_token.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="JSON", help="It is done, with this output; @FILE, or - for stdin."),
    ] = None,
    refuse: Annotated[
        str, typer.Option("--refuse", metavar="CODE", help="It ended with this business error, and without effect.")
    ] = "",
    break_off: Annotated[
        str, typer.Option("--break-off", metavar="CODE", help="It broke with this error: it is asked again.")
    ] = "",
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="Of the error.")] = "",
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Finish a step whose work is in progress elsewhere: done, or with --refuse or --break-off."""

    async def completed() -> None:
        from amends.v1 import orchestrator_pb2 as pb
        from amends.v1 import saga_pb2
        from amends_server.cli.connect import connected
        from amends_server.cli.sagas.showing import print_answer

        _check_usage(output, refuse, break_off, message)
        request = pb.CompleteStepRequest(namespace=namespace, saga_id=saga_id, step=step, token=token)
        request.reply.status = saga_pb2.REPLY_STATUS_SUCCESS
        if refuse or break_off:
            broke = saga_pb2.REPLY_STATUS_SYSTEM_ERROR
            request.reply.status = saga_pb2.REPLY_STATUS_ERROR if refuse else broke
            request.reply.error.code, request.reply.error.message = refuse or break_off, message
        if (text := read_json(output, "--output")) is not None:
            request.reply.output.json = text
        async with connected(server, namespace) as connection:
            response = await connection.once(connection.orchestrator.CompleteStep, request)
            await print_answer(connection, response, response.saga, server, form)

    run(completed(), server)


def _check_usage(output: str | None, refuse: str, break_off: str, message: str) -> None:
    if refuse and break_off:
        raise usage_error("It cannot be both: say --refuse if it had no effect, and --break-off if nobody knows.")
    if (refuse or break_off) and output is not None:
        raise usage_error("A step that failed has no output: leave out --output, or --refuse and --break-off.")
    if message and not (refuse or break_off):
        raise usage_error("--message is that of an error: say its code with --refuse or --break-off.")
