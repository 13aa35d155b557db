"""Commands that look at many sagas: list, stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import EXIT_CODES, run
from amends_server.cli.options import ADDRESS, NAMESPACE, Form, Labels, Namespace, Output, Server
from amends_server.cli.output import print_line, print_message, print_table, status_text, time_text

if TYPE_CHECKING:
    from amends.client.connection import Connection
    from amends.v1 import orchestrator_pb2

LIMIT = 50
"""Sagas in a list if nobody says otherwise: a screen or two."""

LIMIT_MAX = 100_000
"""Sagas in a list at the most: they are gathered before they are shown."""

PAGE_SIZE = 500
"""Sagas asked for at a time: the most that the orchestrator gives."""

OfDefinition = Annotated[
    str, typer.Option("--definition", metavar="NAME", help="Of this definition, NAME or NAME@VERSION.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Show as many at the most.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("list", epilog=EXIT_CODES, rich_help_panel="Sagas")(list_)
    app.command("stuck", epilog=EXIT_CODES, rich_help_panel="Repairs")(stuck)


def list_(
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="In this status: PENDING, RUNNING, COMPLETED, COMPENSATING, COMPENSATED, STUCK or FAILED. May be "
            "repeated; of several one must match.",
        ),
    ] = None,
    definition: OfDefinition = "",
    label: Labels = None,
    newer_than: Annotated[
        str | None, typer.Option("--newer-than", metavar="AGE", help="Started less than this ago: 90s, 2h, 7d.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Started longer than this ago.")
    ] = None,
    running_longer_than: Annotated[
        str | None,
        typer.Option("--running-longer-than", metavar="AGE", help="Not ended, and started longer than this ago."),
    ] = None,
    limit: Limit = LIMIT,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """List sagas, newest first. All filters that are given must match."""

    async def listed() -> None:
        from amends_server.cli.connect import connected
        from amends_server.cli.sagas.where import make_filter

        where = make_filter(
            status=status or (),
            definition=definition,
            label=label or (),
            newer_than=newer_than,
            older_than=older_than,
            running_longer_than=running_longer_than,
        )
        async with connected(server, namespace) as connection:
            found = await gather(connection, namespace, where, limit)
        if form is Form.JSON:
            print_message(found)
        else:
            _print_sagas(found, limit)

    run(listed(), server)


def stuck(
    definition: OfDefinition = "",
    label: Labels = None,
    limit: Limit = LIMIT,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Show the sagas that need an operator: what blocks them since when, and the commands that repair them."""

    async def shown() -> None:
        from amends_server.cli.connect import connected
        from amends_server.cli.sagas.stuck import complete_stuck, options_for, print_stuck, read_kinds
        from amends_server.cli.sagas.where import make_filter

        where = make_filter(status=["STUCK"], definition=definition, label=label or ())
        async with connected(server, namespace) as connection:
            found = await gather(connection, namespace, where, limit)
            if form is Form.JSON:
                print_message(found)
                return
            await complete_stuck(connection, namespace, found.sagas)
            kinds = await read_kinds(connection, namespace, found.sagas)
        print_stuck(found.sagas, kinds, options_for(server, namespace))
        _print_rest(found, limit)

    run(shown(), server)


async def gather(
    connection: Connection, namespace: str, where: orchestrator_pb2.SagaFilter, limit: int
) -> orchestrator_pb2.ListSagasResponse:
    """The sagas of as many pages as it takes, as one answer."""
    from amends.v1 import orchestrator_pb2 as pb

    found = pb.ListSagasResponse()
    while len(found.sagas) < limit:
        size = min(PAGE_SIZE, limit - len(found.sagas))
        request = pb.ListSagasRequest(
            namespace=namespace, filter=where, page_size=size, page_token=found.next_page_token
        )
        page = await connection.once(connection.orchestrator.ListSagas, request)
        found.sagas.extend(page.sagas)
        found.next_page_token = page.next_page_token
        if not page.next_page_token:
            break
    return found


def _print_sagas(found: orchestrator_pb2.ListSagasResponse, limit: int) -> None:
    from amends.views import SagaStatus

    rows = [
        (
            saga.saga_id,
            f"{saga.definition}@{saga.definition_version}",
            status_text(SagaStatus.of(saga.status) + (" (paused)" if saga.paused else "")),
            time_text(saga.create_time),
            " ".join(f"{key}={value}" for key, value in sorted(saga.labels.items())),
        )
        for saga in found.sagas
    ]
    print_table(("SAGA", "DEFINITION", "STATUS", "STARTED", "LABELS"), rows, "No such sagas.")
    _print_rest(found, limit)


def _print_rest(found: orchestrator_pb2.ListSagasResponse, limit: int) -> None:
    if found.next_page_token:
        print_line(f"There are more than these {limit}: narrow the filter, or raise --limit.")
