"""The client of an orchestrator: starts sagas, finds them, and repairs them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from amends.client._hosting import registered_before, shared
from amends.client._registrations import Registrations
from amends.client._starts import Ending
from amends.client.catalogue import Catalogue
from amends.client.connection import Connection, pages
from amends.client.control import Control
from amends.client.filters import Where, filter_message, timestamp
from amends.client.saga import SagaHandle
from amends.completions import Completion
from amends.definition.builder import Saga
from amends.errors import AmendsError, NotFound
from amends.participant.call import Call
from amends.participant.participant import Participant
from amends.participant.serve import serving
from amends.payloads import encode
from amends.policies import Duration, duration_message
from amends.v1 import definition_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from amends.views import SagaView

In = TypeVar("In")
Out = TypeVar("Out")

NAMESPACE = "default"
TIMEOUT_S = 10.0  # far above what a call takes, below what a person waits
RETRY_S = 15.0  # an orchestrator that restarts is back within this

_DEFINITION_NOT_FOUND = "DEFINITION_NOT_FOUND"


class Client(Control, Catalogue):
    """A connection to the orchestrator at `target`, HOST:PORT, for one namespace.

    Of orchestrators that share a database `target` names several, with commas between: calls take turns among those
    that answer, and nobody notices the end of one. `timeout` is for one call. `retry_for` is for how long calls that
    may be repeated are, while no orchestrator is there. Use it as `async with Client(…) as client`. Each call may raise
    any RpcError besides those that it names.

    :raises ValueError: if an address is empty, once it is opened.
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
        self._registrations = Registrations(self._register)

    async def __aenter__(self) -> Self:
        if self._open is not None:
            raise AmendsError("The client is open already: open it in one place, and share it inside of that block.")
        self._open = Connection.open(
            self._target, namespace=self._namespace, timeout_s=self._timeout_s, retry_s=self._retry_s
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            await self._registrations.close()
        finally:
            self._open = None
            await connection.close()

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
        at: datetime | None = None,
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
        at: datetime | None = None,
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
        at: datetime | None = None,
        deadline: Duration | None = None,
        wait: bool = False,
    ) -> SagaHandle[Any]:
        """Start a saga, which survives any crash from then on. Its definition is registered if it is not known yet.

        By the name of a definition, the newest version is started. With an `id`, starting again with the same content
        gives the same saga; without one, the id that is made up is in the `saga_id` of exceptions too. It begins `at` a
        time, from which its deadline runs; by default at once. With `wait`, the handle is
        returned once the saga has ended or is STUCK.

        :raises AlreadyExists: if there is a saga of that id with other content.
        :raises InvalidArgument: if the definition or the input is refused.
        :raises NotFound: if there is no definition of that name.
        :raises PayloadError: if the input cannot be a payload.
        :raises ValueError: if the id is empty, or `at` has no time zone.
        """
        if id == "":
            raise ValueError("The id of a saga cannot be empty; without one, leave it out.")
        connection = self._connection
        request = orchestrator_pb2.StartSagaRequest(
            namespace=self._namespace,
            saga_id=id or "",  # without one, the connection makes it
            input=encode(input),
            labels=labels,
            deadline=None if deadline is None else duration_message(deadline, "deadline"),
            start_time=None if at is None else timestamp(at),
        )
        output_type: type[Any] | None = object
        if isinstance(saga, str):
            request.definition.name = saga
            ending = await connection.start(request)
        else:
            output_type = saga.output_type
            ending = await self._start_registered(request, saga.content())
        handle: SagaHandle[Any] = SagaHandle(connection, request.saga_id, output_type, ending)
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

    async def list(self, **where: Unpack[Where]) -> AsyncGenerator[SagaView, None]:
        """The sagas for which all of `where` holds, newest first, without their steps, input and output.

        Of STUCK ones `stuck` says why, and the steps that block them are there.
        """
        filter_ = filter_message(where)
        connection = self._connection

        async def fetch(token: str) -> orchestrator_pb2.ListSagasResponse:
            request = orchestrator_pb2.ListSagasRequest(namespace=self._namespace, filter=filter_, page_token=token)
            return await connection.repeatable(connection.orchestrator.ListSagas, request)

        async with aclosing(pages(fetch)) as found:
            async for page in found:
                for saga in page.sagas:
                    yield SagaView.of(saga)

    async def complete(self, step: Completion | Call, output: object = None) -> SagaView:
        """Finish a step whose participant answered that it is in progress: it succeeded, with this output.

        The same again is harmless. A call can be given by its participant, anybody else has its completion.

        :raises FailedPrecondition: if nobody waits for the outcome any more.
        :raises NotFound: if there is no such saga or step.
        :raises PayloadError: if the output cannot be a payload.
        :raises PermissionDenied: if the token is not that of the step.
        """
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=encode(output))
        return await self._complete(step, reply)

    async def refuse(self, step: Completion | Call, code: str, message: str = "", *, data: object = None) -> SagaView:
        """Finish a step whose participant answered that it is in progress: a business error, without effect.

        Raises what `complete` does.
        """
        error = payload_pb2.Error(code=code, message=message, data=encode(data))
        return await self._complete(step, saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=error))

    async def break_off(
        self, step: Completion | Call, code: str, message: str = "", *, data: object = None
    ) -> SagaView:
        """End the work of a step whose participant answered that it is in progress: a system error.

        Nobody knows whether it had its effect, so that the participant is asked again, by the step's retry policy, and
        the step is compensated if the saga turns back. Each time that this is said counts as an attempt.

        Raises what `complete` does; Unavailable where that one would try again.
        """
        error = payload_pb2.Error(code=code, message=message, data=encode(data))
        reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR, error=error)
        request = _completing(step, reply)
        response = await self._connection.once(self._connection.orchestrator.CompleteStep, request)
        return SagaView.of(response.saga)

    @asynccontextmanager
    async def hosting(
        self, participant: Participant, *, listen: str = "127.0.0.1:0", advertise: str | None = None
    ) -> AsyncGenerator[str, None]:
        """Serve a participant in this process inside the block, registered at the orchestrator: for local steps.

        Sagas call its actions like those of any other service, with the same guarantees: when this process dies, they
        go on once the participant is hosted again, wherever. Of several processes that host it, the last one that came
        is called; when it ends or dies, another one that is there is. `listen` and `advertise` are those of `serving`:
        say them where the orchestrator is on another machine.

        :raises ServeError: the port is taken, or the orchestrator does not register the participant.
        """
        connection, name = self._connection, participant.name
        before = await registered_before(connection, name)
        async with (
            serving(participant, listen=listen, orchestrator=self._target, advertise=advertise) as address,
            shared(connection, name, advertise or address, before),
        ):
            yield address

    async def _complete(self, step: Completion | Call, reply: saga_pb2.Reply) -> SagaView:
        request = _completing(step, reply)
        response = await self._connection.repeatable(self._connection.orchestrator.CompleteStep, request)
        return SagaView.of(response.saga)

    async def _start_registered(self, request: orchestrator_pb2.StartSagaRequest, content: bytes) -> Ending | None:
        registered = self._registrations.known(content) or await self._registrations.made(content)
        request.definition.digest = registered.digest
        try:
            return await self._connection.start(request)
        except NotFound as error:
            if error.reason != _DEFINITION_NOT_FOUND:
                raise
        # it was removed, or the orchestrator has another store now
        request.definition.digest = (await self._registrations.renewed(content, registered)).digest
        return await self._connection.start(request)

    async def _register(self, content: bytes) -> str:
        definition = definition_pb2.Definition.FromString(content)
        return (await self.register(definition)).definition.digest


def _completing(step: Completion | Call, reply: saga_pb2.Reply) -> orchestrator_pb2.CompleteStepRequest:
    completion = step.completion if isinstance(step, Call) else step
    return orchestrator_pb2.CompleteStepRequest(
        namespace=completion.namespace,
        saga_id=completion.saga_id,
        step=completion.step,
        token=completion.token,
        reply=reply,
    )


def _seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
