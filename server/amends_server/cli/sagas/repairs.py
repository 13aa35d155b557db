"""Commands for operators: retry, fail, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, assert_never

import typer

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
from amends_server.cli.sagas.bulk import DryRun, Limit, SagaOrNone, Where, read_many, steer_many

if TYPE_CHECKING:
    from amends.client.connection import Connection
    from amends.v1 import operator_pb2

    Response = (
        operator_pb2.RetrySagaResponse
        | operator_pb2.FailSagaResponse
        | operator_pb2.PauseSagaResponse
        | operator_pb2.ResumeSagaResponse
    )

Verb = Literal["retry", "fail", "pause", "resume"]


HELP: dict[Verb, str] = {
    "retry": "Have a STUCK saga go on with its attempts anew; one that waits for a retry makes it now.",
    "fail": "Give up a STUCK saga, with whatever was left undone. Final.",
    "pause": "Send no more calls for a saga until it is resumed. Calls in flight end.",
    "resume": "Let a paused saga go on.",
}


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for verb, text in HELP.items():
        app.command(verb, help=text, epilog=EXIT_CODES, rich_help_panel="Repairs")(_command(verb))


def _command(verb: Verb) -> Callable[..., None]:
    """All of them have the same options."""

    def steer(
        saga_id: SagaOrNone = "",
        where: Where = None,
        reason: Reason = None,
        dry_run: DryRun = False,
        limit: Limit = 0,
        server: Server = ADDRESS,
        namespace: Namespace = NAMESPACE,
        form: Output = Form.TEXT,
    ) -> None:
        async def steered() -> None:
            if (many := read_many(saga_id, where, dry_run, limit)) is not None:
                await steer_many(verb, many, reason, server, namespace, form)
            else:
                await _steer_one(verb, saga_id, need_reason(reason), server, namespace, form)

        run(steered(), server)

    return steer


async def _steer_one(verb: Verb, saga_id: str, reason: str, server: str, namespace: str, form: Form) -> None:
    from amends_server.cli.connect import connected
    from amends_server.cli.sagas.showing import print_answer

    async with connected(server, namespace) as connection:
        response = await _ask(verb, connection, namespace=namespace, saga_id=saga_id, reason=reason)
        await print_answer(connection, response, response.saga, server, form)


async def _ask(verb: Verb, connection: Connection, **about: str) -> Response:
    from amends.v1 import operator_pb2 as pb

    operator = connection.operator
    match verb:
        case "retry":
            return await connection.once(operator.RetrySaga, pb.RetrySagaRequest(**about))
        case "fail":
            return await connection.once(operator.FailSaga, pb.FailSagaRequest(**about))
        case "pause":
            return await connection.once(operator.PauseSaga, pb.PauseSagaRequest(**about))
        case "resume":
            return await connection.once(operator.ResumeSaga, pb.ResumeSagaRequest(**about))
        case _:
            assert_never(verb)
