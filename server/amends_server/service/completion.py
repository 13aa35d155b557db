"""CompleteStep: what somebody says of a step whose participant is at work."""

from __future__ import annotations

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import saga_pb2
from amends_server.convert.payload import error_from_wire, read_payload, related_services_from_wire
from amends_server.engine.commands import Complete, Refused, Succeeded, Unknown
from amends_server.engine.key import call_key
from amends_server.engine.payload import Error
from amends_server.engine.rejections import step_unknown
from amends_server.errors import BadField, TokenInvalid
from amends_server.runner.reader import View
from amends_server.tokens import Tokens

_STATUS_BAD = "Say SUCCESS, ERROR or SYSTEM_ERROR; while the work is in progress there is nothing to say."


def read_completion(request: pb.CompleteStepRequest, view: View, tokens: Tokens, payload_bytes_max: int) -> Complete:
    """Return the command. `view` is the saga that is meant.

    :raises amends_server.engine.commands.Rejected: if it has no such step.
    :raises TokenInvalid: if the token is not one of this step's.
    :raises amends_server.errors.ServiceError: if the reply cannot be taken.
    """
    key, graph = view.key, view.state.graph
    if request.step not in graph.index:
        raise step_unknown(request.step)
    execute_key = call_key(key.namespace, key.saga_id, request.step, compensation=False)
    attempt = tokens.attempt_of(execute_key, view.state.started.time, request.token)
    if attempt is None:
        raise TokenInvalid(key.saga_id, request.step)
    participant = graph.node(request.step).step.participant
    return Complete(request.step, attempt, _read_reply(request.reply, participant, payload_bytes_max))


def _read_reply(reply: saga_pb2.Reply, participant: str, size_bytes_max: int) -> Succeeded | Refused | Unknown:
    services = related_services_from_wire(reply.related_services)
    match reply.status:
        case saga_pb2.REPLY_STATUS_SUCCESS:
            return Succeeded(read_payload(reply.output, "reply.output", size_bytes_max), services)
        case saga_pb2.REPLY_STATUS_ERROR:
            error = _read_error(reply, participant, "REFUSED", size_bytes_max)
            return Refused(error, reply.stored, services)
        case saga_pb2.REPLY_STATUS_SYSTEM_ERROR:
            return Unknown(_read_error(reply, participant, "SYSTEM_ERROR", size_bytes_max))
        case _:
            raise BadField("reply.status", _STATUS_BAD)


def _read_error(reply: saga_pb2.Reply, participant: str, code: str, size_bytes_max: int) -> Error:
    given = error_from_wire(reply.error)
    data = read_payload(reply.error.data, "reply.error.data", size_bytes_max)
    return Error(given.code or code, given.message, participant, data)
