"""A saga on standard output, as commands about one saga answer: with the commands that repair it, if it is STUCK."""

from __future__ import annotations

from google.protobuf.message import Message

from amends.client.connection import Connection
from amends.v1 import saga_pb2
from amends_server.cli.options import Form
from amends_server.cli.output import make_console, print_message
from amends_server.cli.sagas.stuck import options_for, print_repairs, read_kinds
from amends_server.cli.sagas.view import draw_saga


async def print_answer(connection: Connection, response: Message, saga: saga_pb2.Saga, server: str, form: Form) -> None:
    """Write the answer to a command about a saga."""
    if form is Form.JSON:
        print_message(response)
        return
    console = make_console()
    draw_saga(saga, console)
    if saga.status == saga_pb2.SAGA_STATUS_STUCK and saga.HasField("stuck"):
        kinds = await read_kinds(connection, connection.namespace, [saga])
        print_repairs(saga, kinds, options_for(server, connection.namespace), console)
