"""The check of a definition: by the orchestrator, which knows the participants, or else without it."""

from __future__ import annotations

from amends.errors import DeadlineExceeded, Unavailable
from amends.v1 import definition_pb2
from amends.v1 import orchestrator_pb2 as pb
from amends_server.cli.connect import connected
from amends_server.convert.check import check_to_wire
from amends_server.convert.definition import diagnose
from amends_server.engine.checks.problem import is_wrong, warning


async def check_definition(
    definition: definition_pb2.Definition, server: str, namespace: str
) -> pb.CheckDefinitionResponse:
    """Return what is to be said of a definition; where no orchestrator answers, a finding says what was left out."""
    try:
        async with connected(server, namespace) as connection:
            request = pb.CheckDefinitionRequest(namespace=namespace, definition=definition)
            return await connection.once(connection.orchestrator.CheckDefinition, request)
    except (Unavailable, DeadlineExceeded) as error:
        if error.reason:  # it is there, and says why it cannot tell
            raise
    return _check_alone(definition, server)


def _check_alone(definition: definition_pb2.Definition, server: str) -> pb.CheckDefinitionResponse:
    read, problems = diagnose(definition)
    if not is_wrong(problems):
        message = (
            f"No orchestrator answers at {server}, so participants and their actions were not checked: start one with"
            " `amends serve`, or say where it listens with --server HOST:PORT or AMENDS_SERVER."
        )
        problems.append(warning("", "PARTICIPANTS_UNCHECKED", message))
    return check_to_wire(read, problems)
