"""The client of an orchestrator: starts sagas, finds them, and repairs them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from google.protobuf import timestamp_pb2

from amends._starts import Ending
from amends.builder import Saga
from amends.connection import Connection, pages
from amends.errors import AmendsError, NotFound
from amends.payloads import encode
from amends.policies import Duration, duration_message
from amends.saga import SagaHandle
from amends.v1 import definition_pb2, operator_pb2, orchestrator_pb2, saga_pb2
from amends.views import Resolution, SagaStatus, SagaView

In = TypeVar("In")
Out = TypeVar("Out")

NAMESPACE = "default"
TIMEOUT_S = 10.0  # far above what a call takes, below what a person waits
RETRY_S = 15.0  # an orchestrator that restarts is back within this

_DEFINITION_NOT_FOUND = "DEFINITION_NOT_FOUND"


class Client:
    """A connection to an orchestrator at `target`, HOST:PORT, for one namespace.

    `timeout` is for one call. `retry_for` is for how long calls that may be repeated are, while the orchestrator is not
    there. Use it as `async with Client(…) as client`. Each call may raise any RpcError besides those that it names.
    """

    def __init__(
        self,
        target: str,
        *,
        namespace: str = NAMESPACE,
        timeout: Duration = TIMEOUT_S,
        retry_for: Duration = RETRY_S,
    ) -> None:
        self._target = target
        self._namespace = namespace
        self._timeout_s = _seconds(timeout)
        self._retry_s = _seconds(retry_for)
        self._open: Connection | None = None
        self._digests: dict[bytes, str] = {}

    async def __aenter__(self) -> Self:
        self._open = Connection.open(
            self._target, namespace=self._namespace, timeout_s=self._timeout_s, retry_s=self._retry_s
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.close()
        self._open = None

    def __repr__(self) -> str:
        return f"<client of {self._target}, namespace {self._namespace}>"

    @overload
    async def start(
        self,
        saga: Saga[In, Out],
        input: In,
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline: Duration | None = None,
        wait: bool = False,
    ) -> SagaHandle[Out]: ...
    @overload
    async def start(
        self,
        saga: str,
        input: object,
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline: Duration | None = None,
        wait: bool = False,
    ) -> SagaHandle[object]: ...
    async def start(
        self,
        saga: Saga[In, Any] | str,
        input: object,
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline: Duration | None = None,
        wait: bool = False,
    ) -> SagaHandle[Any]:
        """Start a saga, which survives any crash from then on. Its definition is registered if it is not known yet.

        By the name of a definition, the newest version is started. With an `id`, starting again with the same content
        gives the same saga. With `wait`, the handle is returned once the saga has ended or is STUCK.

        :raises AlreadyExists: if there is a saga of that id with other content.
        :raises InvalidArgument: if the definition or the input is refused.
        :raises NotFound: if there is no definition of that name.
        :raises PayloadError: if the input cannot be a payload.
        """
        request = orchestrator_pb2.StartSagaRequest(
            namespace=self._namespace,
            saga_id=id or uuid.uuid4().hex,  # so that a repeated call is harmless
            input=encode(input),
            labels=labels,
            deadline=duration_message(deadline, "deadline"),
        )
        if isinstance(saga, str):
            request.definition.name = saga
            ending = await self._connection.start(request)
        else:
            ending = await self._start_registered(request, saga.definition())
        output_type = object if isinstance(saga, str) else saga.output_type
        handle = SagaHandle[Any](self._connection, request.saga_id, output_type, ending)
        if wait:
            await handle.wait()
        return handle

    @overload
    def saga(self, definition: Saga[Any, Out], id: str) -> SagaHandle[Out]: ...
    @overload
    def saga(self, definition: None, id: str) -> SagaHandle[object]: ...
    def saga(self, definition: Saga[Any, Any] | None, id: str) -> SagaHandle[Any]:
        """The handle of a saga that was started before; nothing is asked of the orchestrator.

        Without the definition its result is a plain JSON value.
        """
        return SagaHandle[Any](self._connection, id, object if definition is None else definition.output_type)

    async def get(self, id: str) -> SagaView:
        """A saga as it stands.

        :raises NotFound: if there is none of that id.
        """
        return await self.saga(None, id).status()

    async def list(
        self,
        *,
        status: SagaStatus | Iterable[SagaStatus] = (),
        definition: str = "",
        definition_version: int = 0,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        running_longer_than: Duration | None = None,
    ) -> AsyncGenerator[SagaView, None]:
        """The sagas for which all of this holds, newest first, without their steps, input and output."""
        statuses = [status] if isinstance(status, SagaStatus) else status
        wanted = saga_pb2.SagaStatus
        filter_ = orchestrator_pb2.SagaFilter(
            statuses=[wanted.Value(f"SAGA_STATUS_{each}") for each in statuses],
            definition=definition,
            definition_version=definition_version,
            labels=labels,
            created_after=_timestamp(created_after),
            created_before=_timestamp(created_before),
            running_longer_than=duration_message(running_longer_than, "running_longer_than"),
        )
        connection = self._connection

        async def fetch(token: str) -> orchestrator_pb2.ListSagasResponse:
            request = orchestrator_pb2.ListSagasRequest(namespace=self._namespace, filter=filter_, page_token=token)
            return await connection.repeatable(connection.orchestrator.ListSagas, request)

        async with aclosing(pages(fetch)) as found:
            async for page in found:
                for saga in page.sagas:
                    yield SagaView.of(saga)

    async def retry(self, id: str, *, reason: str) -> SagaView:
        """Have a STUCK saga go on with its attempts anew; one that waits for a retry makes it now.

        :raises FailedPrecondition: if it neither is stuck nor waits.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.RetrySagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        response = await self._connection.once(self._connection.operator.RetrySaga, request)
        return SagaView.of(response.saga)

    async def resolve(
        self, id: str, step: str, resolution: Resolution, *, output: object = None, reason: str
    ) -> SagaView:
        """Settle a step that cannot settle itself. `output` is for SUCCEEDED.

        :raises FailedPrecondition: if the step cannot be settled so as it stands.
        :raises NotFound: if there is no such saga or step.
        """
        request = operator_pb2.ResolveStepRequest(
            namespace=self._namespace,
            saga_id=id,
            step=step,
            resolution=saga_pb2.StepResolution.Value(f"STEP_RESOLUTION_{resolution}"),
            output=None if output is None else encode(output),
            reason=reason,
        )
        response = await self._connection.once(self._connection.operator.ResolveStep, request)
        return SagaView.of(response.saga)

    async def fail(self, id: str, *, reason: str) -> SagaView:
        """Give up a STUCK saga, with whatever was left undone. Final.

        :raises FailedPrecondition: if it is not stuck.
        :raises NotFound: if there is none of that id.
        """
        request = operator_pb2.FailSagaRequest(namespace=self._namespace, saga_id=id, reason=reason)
        response = await self._connection.once(self._connection.operator.FailSaga, request)
        return SagaView.of(response.saga)

    async def register(
        self, definition: Saga[Any, Any] | definition_pb2.Definition
    ) -> orchestrator_pb2.RegisterDefinitionResponse:
        """Register a definition: the same content gets the same version again, other content the next one.

        :raises InvalidArgument: if it is refused; `violations` says why.
        """
        request = orchestrator_pb2.RegisterDefinitionRequest(
            namespace=self._namespace, definition=_definition(definition)
        )
        return await self._connection.repeatable(self._connection.orchestrator.RegisterDefinition, request)

    async def check(
        self, definition: Saga[Any, Any] | definition_pb2.Definition
    ) -> orchestrator_pb2.CheckDefinitionResponse:
        """What `register` would say of a definition, which is not stored."""
        request = orchestrator_pb2.CheckDefinitionRequest(namespace=self._namespace, definition=_definition(definition))
        return await self._connection.repeatable(self._connection.orchestrator.CheckDefinition, request)

    async def definitions(self, name: str = "") -> AsyncGenerator[definition_pb2.Definition, None]:
        """The registered definitions by name, newest version first; only those of one name, if it is given."""
        connection = self._connection

        async def fetch(token: str) -> orchestrator_pb2.ListDefinitionsResponse:
            request = orchestrator_pb2.ListDefinitionsRequest(namespace=self._namespace, name=name, page_token=token)
            return await connection.repeatable(connection.orchestrator.ListDefinitions, request)

        async with aclosing(pages(fetch)) as found:
            async for page in found:
                for definition in page.definitions:
                    yield definition

    async def put_participant(self, name: str, address: str, *, concurrency_max: int = 0) -> operator_pb2.Participant:
        """Register a participant that listens at `address`, HOST:PORT, or change where it does.

        `concurrency_max` is how many calls it takes at a time; 0 leaves it to the orchestrator.

        :raises PermissionDenied: if the address is not allowed there.
        """
        participant = operator_pb2.Participant(name=name, address=address, concurrency_max=concurrency_max)
        request = operator_pb2.PutParticipantRequest(participant=participant)
        return (await self._connection.repeatable(self._connection.operator.PutParticipant, request)).participant

    async def participants(self) -> AsyncGenerator[operator_pb2.Participant, None]:
        """The registered participants by name."""
        connection = self._connection

        async def fetch(token: str) -> operator_pb2.ListParticipantsResponse:
            request = operator_pb2.ListParticipantsRequest(page_token=token)
            return await connection.repeatable(connection.operator.ListParticipants, request)

        async with aclosing(pages(fetch)) as found:
            async for page in found:
                for participant in page.participants:
                    yield participant

    async def delete_participant(self, name: str) -> None:
        """Remove a participant.

        :raises FailedPrecondition: if an unfinished saga needs it.
        :raises NotFound: if there is none of that name.
        """
        request = operator_pb2.DeleteParticipantRequest(name=name)
        await self._connection.once(self._connection.operator.DeleteParticipant, request)

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise AmendsError("The client is not open: use it as `async with Client(…) as client`.")
        return self._open

    async def _start_registered(
        self, request: orchestrator_pb2.StartSagaRequest, definition: definition_pb2.Definition
    ) -> Ending | None:
        key = definition.SerializeToString(deterministic=True)
        known = self._digests.get(key)
        request.definition.digest = known or await self._registered(key, definition)
        try:
            return await self._connection.start(request)
        except NotFound as error:
            if error.reason != _DEFINITION_NOT_FOUND:
                raise
            # it was removed, or the orchestrator has another store now
            request.definition.digest = await self._registered(key, definition)
            return await self._connection.start(request)

    async def _registered(self, key: bytes, definition: definition_pb2.Definition) -> str:
        digest = (await self.register(definition)).definition.digest
        self._digests[key] = digest
        return digest


def _definition(definition: Saga[Any, Any] | definition_pb2.Definition) -> definition_pb2.Definition:
    return definition.definition() if isinstance(definition, Saga) else definition


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def _timestamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp
