"""Commands for operators: retry, resolve, fail, pause, resume."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

import typer

from amends_server.cli.bulk import DryRun, Limit, SagaOrNone, Where, read_many, steer_many
from amends_server.cli.exits import EXIT_CODES, run
from amends_server.cli.options import (
    ADDRESS,
    NAMESPACE,
    Form,
    Namespace,
    Output,
    Reason,
    SagaId,
    Server,
    need_reason,
    read_json,
)
from amends_server.cli.output import print_message

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from amends.v1 import saga_pb2

Verb = Literal["retry", "fail", "pause", "resume"]


class Resolution(StrEnum):
    """How a step is settled."""

    SKIPPED = "skipped"
    SUCCEEDED = "succeeded"
    COMPENSATED = "compensated"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (retry, resolve, fail, pause, resume):
        app.command(command.__name__, epilog=EXIT_CODES, rich_help_panel="Repairs")(command)


def retry(
    saga_id: SagaOrNone = "",
    where: Where = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    limit: Limit = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Have a STUCK saga go on with its attempts anew; one that waits for a retry makes it now."""
    _steer("retry", saga_id, where, reason, dry_run, limit, server, namespace, form)


def resolve(
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The id of the step.", show_default=False)],
    as_: Annotated[
        Resolution,
        typer.Option(
            "--as",
            help="skipped: go on without it; succeeded: it has its effect; compensated: it has no effect any more.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("--output", metavar="JSON", help="The step's output, with --as succeeded.")
    ] = None,
    reason: Reason = None,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Settle a step that cannot settle itself, after looking at its participant what really happened."""

    async def resolved() -> None:
        from amends.v1 import operator_pb2 as pb
        from amends.v1 import saga_pb2
        from amends_server.cli.connect import connected

        request = pb.ResolveStepRequest(namespace=namespace, saga_id=saga_id, step=step, reason=need_reason(reason))
        request.resolution = saga_pb2.StepResolution.Value(f"STEP_RESOLUTION_{as_.name}")
        if (text := read_json(output, "--output")) is not None:
            request.output.json = text
        async with connected(server, namespace) as connection:
            response = await connection.once(connection.operator.ResolveStep, request)
        _print(response, response.saga, form)

    run(resolved(), server)


def fail(
    saga_id: SagaOrNone = "",
    where: Where = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    limit: Limit = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Give up a STUCK saga, with whatever was left undone. Final."""
    _steer("fail", saga_id, where, reason, dry_run, limit, server, namespace, form)


def pause(
    saga_id: SagaOrNone = "",
    where: Where = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    limit: Limit = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Send no more calls for a saga until it is resumed. Calls in flight end."""
    _steer("pause", saga_id, where, reason, dry_run, limit, server, namespace, form)


def resume(
    saga_id: SagaOrNone = "",
    where: Where = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    limit: Limit = 0,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Let a paused saga go on."""
    _steer("resume", saga_id, where, reason, dry_run, limit, server, namespace, form)


def _steer(
    verb: Verb,
    saga_id: str,
    where: list[str] | None,
    reason: str | None,
    dry_run: bool,
    limit: int,
    server: str,
    namespace: str,
    form: Form,
) -> None:
    async def steered() -> None:
        if (many := read_many(saga_id, where, dry_run, limit)) is not None:
            await steer_many(verb, many, reason, server, namespace, form)
        else:
            await _steer_one(verb, saga_id, reason, server, namespace, form)

    run(steered(), server)


async def _steer_one(verb: Verb, saga_id: str, reason: str | None, server: str, namespace: str, form: Form) -> None:
    from amends.v1 import operator_pb2 as pb
    from amends_server.cli.connect import connected

    about = {"namespace": namespace, "saga_id": saga_id, "reason": need_reason(reason)}
    async with connected(server, namespace) as connection:
        operator = connection.operator
        match verb:
            case "retry":
                retried = await connection.once(operator.RetrySaga, pb.RetrySagaRequest(**about))
                _print(retried, retried.saga, form)
            case "fail":
                failed = await connection.once(operator.FailSaga, pb.FailSagaRequest(**about))
                _print(failed, failed.saga, form)
            case "pause":
                paused = await connection.once(operator.PauseSaga, pb.PauseSagaRequest(**about))
                _print(paused, paused.saga, form)
            case "resume":
                resumed = await connection.once(operator.ResumeSaga, pb.ResumeSagaRequest(**about))
                _print(resumed, resumed.saga, form)
            case _:
                assert_never(verb)


def _print(response: Message, saga: saga_pb2.Saga, form: Form) -> None:
    from amends_server.cli.saga_view import print_saga

    if form is Form.JSON:
        print_message(response)
    else:
        print_saga(saga)
