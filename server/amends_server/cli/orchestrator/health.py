"""The command for probes: does an orchestrator serve?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amends_server.cli.exits import CommandError, Exit, fail, run, usage_error
from amends_server.cli.options import ADDRESS, Form, Output, Server
from amends_server.cli.output import print_line, print_message

if TYPE_CHECKING:
    import grpc

TIMEOUT_S = 3.0
"""Less than probes usually wait."""


def health(server: Server = ADDRESS, form: Output = Form.TEXT) -> None:
    """Ask an orchestrator whether it serves, for probes.

    Exit codes: 0 it serves; 1 it answers, but does not serve; 2 wrong usage; 3 it does not answer.
    """
    if "," in server:
        fail(usage_error("Probe one orchestrator at a time: give its address with --server HOST:PORT."))
    run(_health(server, form), server)


async def _health(server: str, form: Form) -> None:
    from grpc_health.v1 import health_pb2

    from amends.v1 import orchestrator_pb2
    from amends_server.cli.connect import connected

    service = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"].full_name  # participants serve, too

    async with connected(server) as connection:
        check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
            connection.channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
        )
        response = await connection.once(check, health_pb2.HealthCheckRequest(service=service), TIMEOUT_S)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    if form is Form.JSON:
        print_message(response)
    else:
        print_line(status)
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        text = f"The orchestrator at {server} does not serve now: its log says why."
        raise CommandError(text, Exit.REFUSED)
