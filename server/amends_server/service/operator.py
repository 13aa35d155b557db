"""OperatorService: what operators call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from amends.v1 import operator_pb2 as pb
from amends.v1 import operator_pb2_grpc as pb_grpc
from amends.v1 import payload_pb2, saga_pb2
from amends_server.addresses import parse_address
from amends_server.config import CALLS_IN_FLIGHT_MAX
from amends_server.convert.enums import RESOLUTION_FROM_WIRE
from amends_server.convert.payload import read_payload
from amends_server.convert.saga import saga_to_wire
from amends_server.convert.times import set_time
from amends_server.engine.checks.validation import NAME
from amends_server.engine.commands import Cancel, Fail, Pause, Resolve, Resume, Retry
from amends_server.engine.events import Resolution
from amends_server.engine.payload import Payload
from amends_server.errors import BadField, ParticipantInUse
from amends_server.participants import Participants, Registered
from amends_server.runner.runner import Runner
from amends_server.service.bulk import Bulk
from amends_server.service.callers import principal
from amends_server.service.fields import need_reason, read_key, read_page_size, read_token, write_token
from amends_server.service.replicas import Replicas
from amends_server.service.steering import Order
from amends_server.service.usage import Usage
from amends_server.status import naming_saga, refusals
from amends_server.transport.endpoint import Endpoint

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    _OneSaga = (
        pb.PauseSagaRequest | pb.ResumeSagaRequest | pb.RetrySagaRequest | pb.ResolveStepRequest | pb.FailSagaRequest
    )

Make = Callable[[str, str], Order]
"""Makes a command of its reason and of who gives it."""


class OperatorService(pb_grpc.OperatorServiceServicer):
    """The servicer."""

    def __init__(
        self,
        *,
        runner: Runner,
        bulk: Bulk,
        participants: Participants,
        replicas: Replicas,
        usage: Usage,
        payload_bytes_max: int,
    ) -> None:
        self._runner = runner
        self._bulk = bulk
        self._participants = participants
        self._replicas = replicas
        self._usage = usage
        self._payload_bytes_max = payload_bytes_max

    # One saga

    @refusals
    async def PauseSaga(self, request: pb.PauseSagaRequest, context: Context) -> pb.PauseSagaResponse:
        return pb.PauseSagaResponse(saga=await self._one(request, Pause, context))

    @refusals
    async def ResumeSaga(self, request: pb.ResumeSagaRequest, context: Context) -> pb.ResumeSagaResponse:
        return pb.ResumeSagaResponse(saga=await self._one(request, Resume, context))

    @refusals
    async def RetrySaga(self, request: pb.RetrySagaRequest, context: Context) -> pb.RetrySagaResponse:
        return pb.RetrySagaResponse(saga=await self._one(request, Retry, context))

    @refusals
    async def ResolveStep(self, request: pb.ResolveStepRequest, context: Context) -> pb.ResolveStepResponse:
        resolution, output = self._read_resolution(request.resolution, request.output)
        resolve = partial(Resolve, request.step, resolution, output)
        return pb.ResolveStepResponse(saga=await self._one(request, resolve, context))

    @refusals
    async def FailSaga(self, request: pb.FailSagaRequest, context: Context) -> pb.FailSagaResponse:
        return pb.FailSagaResponse(saga=await self._one(request, Fail, context))

    def _read_resolution(
        self, number: saga_pb2.StepResolution.ValueType, message: payload_pb2.Payload
    ) -> tuple[Resolution, Payload | None]:
        resolution = RESOLUTION_FROM_WIRE.get(number)
        if resolution is None:
            raise BadField("resolution", "Say how the step is settled: SKIPPED, SUCCEEDED or COMPENSATED.")
        output = read_payload(message, "output", self._payload_bytes_max)
        if output is not None and resolution is not Resolution.SUCCEEDED:
            raise BadField("output", "Only a step that SUCCEEDED has an output.")
        return resolution, output

    async def _one(self, request: _OneSaga, make: Make, context: Context) -> saga_pb2.Saga:
        command = make(need_reason(request.reason), principal(context))
        key = read_key(request.namespace, request.saga_id)
        with naming_saga(key):
            view = await self._runner.command(key, command)
        return saga_to_wire(view.state, view.birth.definition_version)

    # Many sagas

    @refusals
    async def RetrySagas(self, request: pb.RetrySagasRequest, context: Context) -> pb.RetrySagasResponse:
        return pb.RetrySagasResponse(result=await self._many(request.bulk, Retry, context))

    @refusals
    async def CancelSagas(self, request: pb.CancelSagasRequest, context: Context) -> pb.CancelSagasResponse:
        return pb.CancelSagasResponse(result=await self._many(request.bulk, Cancel, context))

    @refusals
    async def PauseSagas(self, request: pb.PauseSagasRequest, context: Context) -> pb.PauseSagasResponse:
        return pb.PauseSagasResponse(result=await self._many(request.bulk, Pause, context))

    @refusals
    async def ResumeSagas(self, request: pb.ResumeSagasRequest, context: Context) -> pb.ResumeSagasResponse:
        return pb.ResumeSagasResponse(result=await self._many(request.bulk, Resume, context))

    @refusals
    async def FailSagas(self, request: pb.FailSagasRequest, context: Context) -> pb.FailSagasResponse:
        return pb.FailSagasResponse(result=await self._many(request.bulk, Fail, context))

    @refusals
    async def ResolveSteps(self, request: pb.ResolveStepsRequest, context: Context) -> pb.ResolveStepsResponse:
        if not request.step:
            raise BadField("step", "Say which step is settled: its id in the definition.")
        resolution, output = self._read_resolution(request.resolution, request.output)
        resolve = partial(Resolve, request.step, resolution, output)
        return pb.ResolveStepsResponse(result=await self._many(request.bulk, resolve, context))

    async def _many(self, request: pb.BulkRequest, make: Make, context: Context) -> pb.BulkResult:
        order = make(need_reason(request.reason, "bulk.reason"), principal(context))
        return await self._bulk.run(request, order, context.invocation_metadata())

    # Participants

    @refusals
    async def PutParticipant(self, request: pb.PutParticipantRequest, context: Context) -> pb.PutParticipantResponse:
        registered = await self._participants.put(_read_endpoint(request.participant))
        return pb.PutParticipantResponse(participant=_participant_to_wire(registered))

    @refusals
    async def ListParticipants(
        self, request: pb.ListParticipantsRequest, context: Context
    ) -> pb.ListParticipantsResponse:
        limit = read_page_size(request.page_size)
        place = read_token(request.page_token, request, (str,))
        after = place[0] if place else ""
        found = [registered for registered in await self._participants.all() if registered.endpoint.name > after]
        return pb.ListParticipantsResponse(
            participants=[_participant_to_wire(registered) for registered in found[:limit]],
            next_page_token=write_token([found[limit - 1].endpoint.name], request) if len(found) > limit else "",
        )

    @refusals
    async def DeleteParticipant(
        self, request: pb.DeleteParticipantRequest, context: Context
    ) -> pb.DeleteParticipantResponse:
        user = await self._usage.unfinished_saga_with(request.name)
        if user is not None:
            raise ParticipantInUse(request.name, user.saga_id)
        await self._participants.delete(request.name)
        return pb.DeleteParticipantResponse()

    # Orchestrators

    @refusals
    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Context) -> pb.ListReplicasResponse:
        return await self._replicas.list()


def _read_endpoint(message: pb.Participant) -> Endpoint:
    if not NAME.fullmatch(message.name):
        raise BadField("participant.name", "It must be a letter, then at most 127 letters, digits, `.`, `_` or `-`.")
    if not message.address:
        raise BadField("participant.address", "Say where it listens, as HOST:PORT.")
    try:
        parse_address(message.address)
    except ValueError as problem:
        raise BadField("participant.address", f"{problem}.") from None
    if message.concurrency_max < 0:
        raise BadField("participant.concurrency_max", "It must not be negative; 0 is the default.")
    return Endpoint(message.name, message.address, message.concurrency_max or CALLS_IN_FLIGHT_MAX)


def _participant_to_wire(registered: Registered) -> pb.Participant:
    message = pb.Participant(
        name=registered.endpoint.name,
        address=registered.endpoint.address,
        concurrency_max=registered.endpoint.concurrency_max,
        actions=registered.actions or (),
        described=registered.actions is not None,
        fixed=registered.fixed,
    )
    set_time(message.update_time, registered.update_time)
    return message
