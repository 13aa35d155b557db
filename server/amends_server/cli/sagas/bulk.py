"""The bulk forms of commands: one command for all sagas that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

import typer

from amends_server.cli.exits import CommandError, usage_error
from amends_server.cli.options import COUNT_MAX, Form, need_reason
from amends_server.cli.output import print_line, print_message

if TYPE_CHECKING:
    from amends.client.connection import Connection
    from amends.v1 import operator_pb2

    Response = (
        operator_pb2.RetrySagasResponse
        | operator_pb2.CancelSagasResponse
        | operator_pb2.PauseSagasResponse
        | operator_pb2.ResumeSagasResponse
        | operator_pb2.FailSagasResponse
        | operator_pb2.ResolveStepsResponse
    )

Verb = Literal["retry", "cancel", "pause", "resume", "fail"]

DONE: dict[Verb, str] = {
    "retry": "retried",
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "fail": "given up",
}

SagaOrNone = Annotated[
    str, typer.Argument(metavar="SAGA", help="The id of a saga; leave it out with --where.", show_default=False)
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="NAME=VALUE",
        help="Instead of SAGA: all sagas with status=STATUS, definition=NAME, definition=NAME@VERSION, "
        "label=KEY=VALUE, newer-than=AGE, older-than=AGE or running-longer-than=AGE, AGE as in 90s, 2h or 7d. May be "
        "repeated; all that are given must match, of several statuses one.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --where: count, and change nothing.")]
Limit = Annotated[
    int,
    typer.Option(
        "--limit", min=0, max=COUNT_MAX, help="With --where: change as many at the most; 0 is the orchestrator's limit."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """What was said of the sagas that are meant, where it was no id."""

    where: Sequence[str]
    dry_run: bool
    limit: int


def read_many(saga_id: str, where: Sequence[str] | None, dry_run: bool, limit: int) -> Many | None:
    """What is meant by the options of a bulk form; None for one saga.

    :raises CommandError: if it is neither the one nor the other.
    """
    if bool(saga_id) == bool(where):
        raise usage_error("Say which sagas: either SAGA, or --where NAME=VALUE for all that match.")
    if where:
        return Many(where=where, dry_run=dry_run, limit=limit)
    if dry_run or limit:
        raise usage_error("--dry-run and --limit need --where.")
    return None


async def steer_many(verb: Verb, many: Many, reason: str | None, server: str, namespace: str, form: Form) -> None:
    """Carry a command out on all sagas that match.

    :raises CommandError: if some of them could not be changed.
    """
    from amends_server.cli.connect import connected

    bulk = bulk_request(many, reason, namespace)
    async with connected(server, namespace) as connection:
        response = await _ask(verb, bulk, connection)
    report(DONE[verb], response, many, form)


def bulk_request(many: Many, reason: str | None, namespace: str) -> operator_pb2.BulkRequest:
    """What all bulk forms say of the sagas that are meant."""
    from amends.v1 import operator_pb2 as pb
    from amends_server.cli.sagas.where import read_where

    return pb.BulkRequest(
        namespace=namespace,
        filter=read_where(many.where),
        limit=many.limit,
        reason=reason or "dry run" if many.dry_run else need_reason(reason),
        dry_run=many.dry_run,
    )


def report(done: str, response: Response, many: Many, form: Form) -> None:
    """Write what a bulk form did.

    :raises CommandError: if some sagas could not be changed.
    """
    if form is Form.JSON:
        print_message(response)
    else:
        _print(done, response.result, many)
    if count := len(response.result.failures):
        raise CommandError(f"{count} saga{'' if count == 1 else 's'} could not be {done}: see `amends show SAGA`.")


async def _ask(verb: Verb, bulk: operator_pb2.BulkRequest, connection: Connection) -> Response:
    from amends.v1 import operator_pb2 as pb

    operator = connection.operator
    match verb:
        case "retry":
            return await connection.once(operator.RetrySagas, pb.RetrySagasRequest(bulk=bulk))
        case "cancel":
            return await connection.once(operator.CancelSagas, pb.CancelSagasRequest(bulk=bulk))
        case "pause":
            return await connection.once(operator.PauseSagas, pb.PauseSagasRequest(bulk=bulk))
        case "resume":
            return await connection.once(operator.ResumeSagas, pb.ResumeSagasRequest(bulk=bulk))
        case "fail":
            return await connection.once(operator.FailSagas, pb.FailSagasRequest(bulk=bulk))
        case _:
            assert_never(verb)


def _print(done: str, result: operator_pb2.BulkResult, many: Many) -> None:
    for failure in result.failures:
        print_line(f"{failure.saga_id}: {failure.message}")
    left = f", {result.remaining_count} more match" if result.remaining_count else ""
    again = ": give the command again" if left and not many.dry_run else ""
    count = f"{result.changed_count} saga{'' if result.changed_count == 1 else 's'}"
    print_line(f"{count} {'would be ' if many.dry_run else ''}{done}{left}{again}.")
