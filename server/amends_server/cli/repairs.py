"""Commands for operators: retry, fail, pause, resume."""

from __future__ import annotations

from typing import Literal, assert_never

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
    Server,
    need_reason,
)

Verb = Literal["retry", "fail", "pause", "resume"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (retry, fail, pause, resume):
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
    from amends_server.cli.showing import print_answer

    about = {"namespace": namespace, "saga_id": saga_id, "reason": need_reason(reason)}
    async with connected(server, namespace) as connection:
        operator = connection.operator
        match verb:
            case "retry":
                retried = await connection.once(operator.RetrySaga, pb.RetrySagaRequest(**about))
                await print_answer(connection, retried, retried.saga, server, form)
            case "fail":
                failed = await connection.once(operator.FailSaga, pb.FailSagaRequest(**about))
                await print_answer(connection, failed, failed.saga, server, form)
            case "pause":
                paused = await connection.once(operator.PauseSaga, pb.PauseSagaRequest(**about))
                await print_answer(connection, paused, paused.saga, server, form)
            case "resume":
                resumed = await connection.once(operator.ResumeSaga, pb.ResumeSagaRequest(**about))
                await print_answer(connection, resumed, resumed.saga, server, form)
            case _:
                assert_never(verb)
