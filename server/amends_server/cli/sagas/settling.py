"""The command that settles a step by hand: resolve."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import EXIT_CODES, run, usage_error
from amends_server.cli.options import (
    ADDRESS,
    NAMESPACE,
    Form,
    Namespace,
    Output,
    Reason,
    Server,
    need_reason,
    read_json,
)
from amends_server.cli.sagas.bulk import DryRun, Limit, Many, Where, bulk_request, read_many, report

if TYPE_CHECKING:
    from amends.v1 import operator_pb2


class Resolution(StrEnum):
    """How a step is settled."""

    SKIPPED = "skipped"
    SUCCEEDED = "succeeded"
    COMPENSATED = "compensated"


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog=EXIT_CODES, rich_help_panel="Repairs")(resolve)


def resolve(
    as_: Annotated[
        Resolution,
        typer.Option(
            "--as",
            help="skipped: go on without it; succeeded: it has its effect; compensated: it has no effect any more.",
        ),
    ],
    first: Annotated[
        str, typer.Argument(metavar="SAGA", help="The id of a saga; leave it out with --where.", show_default=False)
    ] = "",
    second: Annotated[str, typer.Argument(metavar="STEP", help="The id of the step.", show_default=False)] = "",
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="JSON", help="The step's output, with --as succeeded; @FILE, or - for stdin."),
    ] = None,
    where: Where = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    limit: Limit = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Settle a step that cannot settle itself, after looking at its participant what really happened.

    With --where: in all sagas that match and wait for that step.
    """

    async def resolved() -> None:
        if output is not None and as_ is not Resolution.SUCCEEDED:
            raise usage_error("Only a step that succeeded has an output: leave out --output, or say --as succeeded.")
        saga_id, step = _read_names(first, second, where)
        if (many := read_many(saga_id, where, dry_run, limit)) is not None:
            await _resolve_many(step, as_, output, many, reason, server, namespace, form)
        else:
            await _resolve_one(saga_id, step, as_, output, reason, server, namespace, form)

    run(resolved(), server)


def _read_names(first: str, second: str, where: Sequence[str] | None) -> tuple[str, str]:
    """The ids of the saga, empty if there is none, and of the step."""
    if not first or bool(second) == bool(where):
        raise usage_error(
            "Say which step of which sagas: either SAGA STEP, or STEP --where NAME=VALUE for all that match."
        )
    return ("", first) if where else (first, second)


async def _resolve_one(
    saga_id: str,
    step: str,
    as_: Resolution,
    output: str | None,
    reason: str | None,
    server: str,
    namespace: str,
    form: Form,
) -> None:
    from amends.v1 import operator_pb2 as pb
    from amends_server.cli.connect import connected
    from amends_server.cli.sagas.showing import print_answer

    request = pb.ResolveStepRequest(namespace=namespace, saga_id=saga_id, step=step, reason=need_reason(reason))
    _fill(request, as_, output)
    async with connected(server, namespace) as connection:
        response = await connection.once(connection.operator.ResolveStep, request)
        await print_answer(connection, response, response.saga, server, form)


async def _resolve_many(
    step: str,
    as_: Resolution,
    output: str | None,
    many: Many,
    reason: str | None,
    server: str,
    namespace: str,
    form: Form,
) -> None:
    from amends.v1 import operator_pb2 as pb
    from amends_server.cli.connect import connected

    request = pb.ResolveStepsRequest(bulk=bulk_request(many, reason, namespace), step=step)
    _fill(request, as_, output)
    async with connected(server, namespace) as connection:
        response = await connection.once(connection.operator.ResolveSteps, request)
    report(f"settled at step {step}", response, many, form)


def _fill(
    request: operator_pb2.ResolveStepRequest | operator_pb2.ResolveStepsRequest, as_: Resolution, output: str | None
) -> None:
    """Say how the step is settled."""
    from amends.v1 import saga_pb2

    request.resolution = saga_pb2.StepResolution.Value(f"STEP_RESOLUTION_{as_.name}")
    if (text := read_json(output, "--output")) is not None:
        request.output.json = text
