"""Commands for sagas: start, show, watch, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import EXIT_CODES, CommandError, Exit, note, run, usage_error
from amends_server.cli.options import (
    ADDRESS,
    NAMESPACE,
    Form,
    Labels,
    Namespace,
    Output,
    Reference,
    SagaId,
    Server,
    Wait,
    read_duration,
    read_json,
    read_labels,
    read_time,
)
from amends_server.cli.output import print_line
from amends_server.cli.sagas.bulk import DryRun, Limit, SagaOrNone, Where, read_many, steer_many

if TYPE_CHECKING:
    from amends.v1 import orchestrator_pb2, saga_pb2


SEQUENCE_MAX = (1 << 63) - 1
"""What the orchestrator counts with."""


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (start, show, watch, cancel):
        app.command(command.__name__, epilog=EXIT_CODES, rich_help_panel="Sagas")(command)


def start(
    definition: Reference = "",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A definition as YAML or JSON, instead of a name.")
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="The input; @FILE reads a file, - reads stdin.")
    ] = None,
    saga_id: Annotated[
        str | None, typer.Option("--id", metavar="SAGA", help="The saga's id, so that a repeated start is harmless.")
    ] = None,
    label: Labels = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Begin then and not before, for example 2031-05-01T08:00:00Z."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="AGE", help="Turn back if it is not done so long after its begin: 90s, 2h, 7d."
        ),
    ] = None,
    wait: Wait = False,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Start a saga. With --wait, the exit code is 0 only if it is COMPLETED."""

    async def started() -> None:
        request = _read_start(definition, file, input_, saga_id, label, at, deadline, namespace)
        await _start(request, wait, saga_id is None, server, form)

    run(started(), server)


def _read_start(
    definition: str,
    file: Path | None,
    input_: str | None,
    saga_id: str | None,
    label: list[str] | None,
    at: str | None,
    deadline: str | None,
    namespace: str,
) -> orchestrator_pb2.StartSagaRequest:
    from amends.ids import new_saga_id
    from amends.v1 import orchestrator_pb2 as pb
    from amends_server.cli.definitions.files import read_definition
    from amends_server.cli.definitions.references import read_reference

    if saga_id == "":
        raise usage_error("The saga's id is empty: say another with --id, or leave it out.")
    request = pb.StartSagaRequest(
        namespace=namespace,
        saga_id=saga_id or new_saga_id(),  # made here, so that it is known if no answer comes
        labels=read_labels(label),
        start_time=read_time(at, "--at"),
    )
    if (deadline_s := read_duration(deadline, "--deadline")) is not None:
        request.deadline.FromMilliseconds(round(deadline_s * 1_000))
    if (text := read_json(input_, "--input")) is not None:
        request.input.json = text
    if bool(definition) == (file is not None):
        raise usage_error("Say which definition to start: either DEFINITION, a registered one, or --file FILE.")
    if file is not None:
        request.inline_definition.CopyFrom(read_definition(file))
    else:
        request.definition.CopyFrom(read_reference(definition))
    return request


async def _start(
    request: orchestrator_pb2.StartSagaRequest, wait: bool, unnamed: bool, server: str, form: Form
) -> None:
    from amends.client.connection import naming_saga
    from amends_server.cli.connect import connected
    from amends_server.cli.sagas.showing import print_answer
    from amends_server.cli.sagas.stuck import options_for

    namespace, known_id = request.namespace, request.saga_id
    async with connected(server, namespace) as connection:
        with naming_saga(known_id):
            response = await connection.once(connection.orchestrator.StartSaga, request)
        if wait:
            if unnamed:  # or nobody could ask for it once the wait is broken off
                note({"waiting_for": known_id}, f"waiting for {known_id}")
            response.saga.CopyFrom(await _settled(server, namespace, known_id))
        if wait or form is Form.JSON:
            await print_answer(connection, response, response.saga, server, form)
        else:
            _print_started(response, options_for(server, namespace))
    if wait:
        need_status(response.saga, "COMPLETED")


def _print_started(response: orchestrator_pb2.StartSagaResponse, options: list[str]) -> None:
    from amends_server.cli.sagas.stuck import command_line

    saga = response.saga
    what = "started" if response.created else "was started before"
    watch = command_line(["watch", *options], saga.saga_id)
    print_line(f"{saga.saga_id} {what} ({saga.definition}@{saga.definition_version}): {watch}")


def show(saga_id: SagaId, server: Server = ADDRESS, namespace: Namespace = NAMESPACE, form: Output = Form.TEXT) -> None:
    """Show a saga: its status, its cause, and each step with attempts, times and errors."""
    run(_show(saga_id, server, namespace, form), server)


async def _show(saga_id: str, server: str, namespace: str, form: Form) -> None:
    from amends.v1 import orchestrator_pb2 as pb
    from amends_server.cli.connect import connected
    from amends_server.cli.sagas.showing import print_answer

    async with connected(server, namespace) as connection:
        request = pb.GetSagaRequest(namespace=namespace, saga_id=saga_id)
        response = await connection.once(connection.orchestrator.GetSaga, request)
        await print_answer(connection, response, response.saga, server, form)


def watch(
    saga_id: SagaId,
    after: Annotated[
        int,
        typer.Option(
            "--after", metavar="SEQUENCE", min=0, max=SEQUENCE_MAX, help="Begin behind this event; needs -o json."
        ),
    ] = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Watch a saga until it has ended, also across restarts of the orchestrator. Ends with 0 if it is COMPLETED.

    On a terminal the steps are shown as they change. Elsewhere each event is a line, with -o json a JSON document.
    """
    run(_watch(saga_id, after, server, namespace, form), server)


async def _watch(saga_id: str, after: int, server: str, namespace: str, form: Form) -> None:
    from amends.v1 import orchestrator_pb2 as pb
    from amends_server.cli.connect import WATCH_RETRY_S, connected
    from amends_server.cli.sagas.screen import print_events, show_live

    if after and form is not Form.JSON:
        raise usage_error("--after needs -o json: a picture of the steps takes all events.")
    async with connected(server, namespace) as connection:  # an error is told at once, a lost connection is not
        request = pb.GetSagaRequest(namespace=namespace, saga_id=saga_id)
        saga = (await connection.once(connection.orchestrator.GetSaga, request)).saga
    async with connected(server, namespace, retry_s=WATCH_RETRY_S) as connection:
        if form is Form.JSON:
            await print_events(connection, saga_id, after)
        else:
            await show_live(connection, saga)
        saga = (await connection.repeatable(connection.orchestrator.GetSaga, request)).saga
    need_status(saga, "COMPLETED")


def cancel(
    saga_id: SagaOrNone = "",
    where: Where = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; shown for ever. Needed with --where.")
    ] = "",
    dry_run: DryRun = False,
    limit: Limit = 0,
    wait: Wait = False,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Turn a saga back. With --wait, the exit code is 0 only if it is COMPENSATED."""

    async def cancelled() -> None:
        from amends.v1 import orchestrator_pb2 as pb
        from amends_server.cli.connect import connected
        from amends_server.cli.sagas.showing import print_answer

        if (many := read_many(saga_id, where, dry_run, limit)) is not None:
            if wait:
                raise usage_error("--wait is for one saga: watch many with `amends list`.")
            await steer_many("cancel", many, reason or None, server, namespace, form)
            return
        request = pb.CancelSagaRequest(namespace=namespace, saga_id=saga_id, reason=reason)
        async with connected(server, namespace) as connection:
            response = await connection.once(connection.orchestrator.CancelSaga, request)
            if wait:
                response.saga.CopyFrom(await _settled(server, namespace, saga_id))
            await print_answer(connection, response, response.saga, server, form)
        if wait:
            need_status(response.saga, "COMPENSATED")

    run(cancelled(), server)


def need_status(saga: saga_pb2.Saga, wanted: str) -> None:
    """End with the exit code for it if a saga that was waited for is in another status."""
    from amends.views import SagaStatus

    status = SagaStatus.of(saga.status)
    if status != wanted:
        then = f": see `amends show {saga.saga_id}`" if status is SagaStatus.STUCK else ""
        raise CommandError(f"{saga.saga_id} is {status} and not {wanted}{then}.", Exit.NOT_COMPLETED)


async def _settled(server: str, namespace: str, saga_id: str) -> saga_pb2.Saga:
    from amends.client.saga import SagaHandle
    from amends_server.cli.connect import WATCH_RETRY_S, connected

    async with connected(server, namespace, retry_s=WATCH_RETRY_S) as connection:
        view = await SagaHandle[object](connection, saga_id, object).wait()
    return view.message
