"""Those who call the server: clients that start sagas, cancel and watch them, and participants that are at work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from amends.testing.simulation.process import CallFailed, Process, SimulatedContext
from amends.testing.simulation.sessions import Stream
from amends.v1 import orchestrator_pb2, participant_pb2, payload_pb2
from amends_server.convert.definition import definition_to_wire
from amends_server.convert.times import set_time
from amends_server.engine.definition import Definition, digest
from amends_server.engine.policy import SECOND_US, Time
from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    from amends.testing.simulation.world import World

NAMESPACE = "default"
CALL_TIMEOUT_S = 8.0
"""After which a client gives a call up."""

AGAIN_S = 0.5
"""How long a client waits before it repeats a call that failed."""

UNANSWERED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED})
"""Statuses after which a client asks again: nobody has said what became of its call."""

TURNED_AWAY = grpc.StatusCode.RESOURCE_EXHAUSTED
"""Status after which a client starts again: there was no room, and nothing was done."""

SPOILT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})
"""Statuses with which the server says that it cannot go on with a saga; right for one whose records are spoilt."""


class SagaSpoilt(Exception):
    """The server says that it cannot go on with a saga, and is right."""


class Caller:
    """Makes calls over a network that loses them, and their answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def call(self, who: str, method: str, request: Any) -> Any:
        """Call the server. :raises CallFailed: with its status, or that of the network."""
        world = self._world
        about = f"{who} {method}"
        await world.sleep(world.dice.number(f"way {about}", 0.0005, 0.005))
        process = world.choose_process(about)
        if process is None or world.dice.strikes("call lost", about, 0.03):
            raise CallFailed(grpc.StatusCode.UNAVAILABLE)
        servicer = process.orchestrator if hasattr(process.orchestrator, method) else process.operator
        future, task = process.serve(getattr(servicer, method), request)
        timeout_s = CALL_TIMEOUT_S
        if world.dice.strikes("impatient", about, 0.04):
            timeout_s = world.dice.number(f"impatient {about}", 0.0, 0.01)
        try:
            async with asyncio.timeout(timeout_s):
                response = await asyncio.shield(future)
        except CallFailed as failed:
            self._see_owner(process, request, failed)
            self.look_at(getattr(request, "saga_id", ""), failed)
            raise
        except TimeoutError:
            world.story.see("call given up by the client")
            world.story.tell(who, f"gives {method} up")
            future.cancel()
            task.cancel()
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED) from None
        if world.dice.strikes("acknowledgement lost", about, 0.04):
            raise CallFailed(grpc.StatusCode.UNAVAILABLE)
        return response

    def _see_owner(self, process: Process, request: Any, failed: CallFailed) -> None:
        if failed.reason == "NOT_OWNED":
            self._world.story.see("sent away by a process that does not own the saga")
        key = SagaKey(NAMESPACE, getattr(request, "saga_id", ""))
        failed.stale = process.stale(key)

    def look_at(self, saga_id: str, failed: CallFailed) -> None:
        """Look at how a call failed. :raises SagaSpoilt: if that is all that one can say of this saga."""
        if failed.code in SPOILT and SagaKey(NAMESPACE, saga_id) in self._world.judge.spoilt:
            raise SagaSpoilt


class Client:
    """Starts one saga, repeats that until it is answered, and perhaps cancels or watches it."""

    def __init__(self, world: World, number: int, definition: Definition) -> None:
        self._world = world
        self._definition = definition
        self._caller = world.caller
        self.name = f"client-{number}"
        self.key = SagaKey(NAMESPACE, f"saga-{number}")
        self._begin_time: Time | None = None

    async def run(self, start_s: float) -> None:
        """Start the saga, and all that goes with it."""
        world = self._world
        await world.sleep(start_s)
        if world.dice.strikes("for later", self.name, 0.15):
            world.story.see("started for later")
            delay_s = world.dice.number(f"later {self.name}", 0.5, 9.0)
            self._begin_time = world.clock.now() + round(delay_s * SECOND_US)
        if world.dice.strikes("by a session", self.name, 0.4):
            world.background(self._start_by_session(), self.name)
        if world.dice.strikes("two starts at once", self.name, 0.2):
            world.background(self._start(), self.name)
        created = await self._start()
        if world.dice.strikes("again by a session", self.name, 0.4):
            world.background(self._start_by_session(), self.name)
        if world.dice.strikes("watched", self.name, 0.5):
            world.background(self._watch(), self.name)
        if world.dice.strikes("waited for", self.name, 0.3):
            world.background(self._wait(), self.name)
        if world.dice.strikes("cancelled", self.name, 0.3):
            world.background(self._cancel(), self.name)
        if world.dice.strikes("started again", self.name, 0.3):
            await world.sleep(world.dice.number(f"again {self.name}", 0.0, 6.0))
            again = await self._start()
            assert not again or not created, "I19: two starts of one id were both the first"
        if world.dice.strikes("other content", self.name, 0.2):
            await self._start_other()

    async def _start(self) -> bool:
        """Start it and return whether that was the first time; ask until somebody says."""
        lost = False
        while True:
            try:
                response = await self._caller.call(self.name, "StartSaga", self._request())
            except CallFailed as failed:
                self._look_at_start(failed)
                lost = lost or failed.code in UNANSWERED
                await self._world.sleep(AGAIN_S)
                continue
            return self._started(response, lost)

    def _look_at_start(self, failed: CallFailed) -> None:
        turned_away = failed.code is TURNED_AWAY
        self._world.judge.must(turned_away or failed.code in UNANSWERED, f"I19: a start was answered {failed}")
        if turned_away:
            self._world.story.see("start refused because too many wait for a participant")

    def _started(self, response: orchestrator_pb2.StartSagaResponse, lost: bool) -> bool:
        world = self._world
        world.story.tell(self.name, f"is told that {self.key.saga_id} is started, first: {response.created}")
        if not response.created:
            world.story.see("start lost and repeated" if lost else "start acknowledged twice")
        same = response.saga.definition_digest == digest(self._definition)
        world.judge.must(same, f"I19, I33: {self.key.saga_id} was started with another definition")
        world.judge.start_acknowledged(self.key, b"7")
        world.judge.shown(self.key, response.saga.sequence)
        return response.created

    def _request(self, *, other: bool = False) -> orchestrator_pb2.StartSagaRequest:
        request = orchestrator_pb2.StartSagaRequest(
            saga_id=self.key.saga_id,
            inline_definition=definition_to_wire(self._definition),
            input=payload_pb2.Payload(json=self._world.subject.input),
            labels={"other": "1"} if other else {},
        )
        if self._begin_time is not None:
            set_time(request.start_time, self._begin_time)
        return request

    async def _start_by_session(self) -> None:
        """Start it once more, over a stream, and wait for its end there."""
        world = self._world
        process = world.choose_process(f"{self.name} Session")
        if process is None:
            return
        request = self._request()
        request.definition.digest = digest(self._definition)  # in the place of the whole
        request.wait = True
        stream = Stream(world, process)
        try:
            stream.send(request)
            acknowledged = await stream.next(CALL_TIMEOUT_S)
            world.story.see("start acknowledged by a session")
            world.judge.start_acknowledged(self.key, b"7")
            world.judge.shown(self.key, acknowledged.saga.sequence)
            end = await stream.next(CALL_TIMEOUT_S)
            world.story.see("end told by a session")
            world.judge.settled(self.key, end.saga.sequence)
        except CallFailed as failed:
            self._caller.look_at(self.key.saga_id, failed)
            if failed.code is not grpc.StatusCode.NOT_FOUND:  # the definition, if no other start has got through
                self._look_at_start(failed)
        finally:
            stream.close()

    async def _start_other(self) -> None:
        """Start another saga under the same id, which must not be."""
        world = self._world
        try:
            await self._caller.call(self.name, "StartSaga", self._request(other=True))
        except CallFailed as failed:
            refused = failed.code is grpc.StatusCode.ALREADY_EXISTS
            world.judge.must(refused or failed.code in UNANSWERED, f"I19: a start of another was answered {failed}")
            if refused:
                world.story.see("start refused for other content")
            return
        world.judge.start_acknowledged(self.key, b"8")

    async def _cancel(self) -> None:
        world = self._world
        await world.sleep(world.dice.number(f"cancel {self.name}", 0.0, 4.0))
        request = orchestrator_pb2.CancelSagaRequest(saga_id=self.key.saga_id, reason="simulated")
        while True:
            try:
                response = await self._caller.call(self.name, "CancelSaga", request)
            except CallFailed as failed:
                if failed.code in UNANSWERED:
                    await world.sleep(AGAIN_S)
                    continue
                world.story.tell(self.name, f"is told that {self.key.saga_id} cannot be cancelled: {failed.reason}")
                precondition = failed.code is grpc.StatusCode.FAILED_PRECONDITION
                world.judge.must(precondition, f"I21: a cancel was answered {failed}")
                world.judge.rejected(self.key, failed.reason)
                return
            world.story.tell(self.name, f"is told that {self.key.saga_id} is cancelled")
            world.judge.cancel_accepted(self.key)
            world.judge.shown(self.key, response.saga.sequence)
            return

    async def _wait(self) -> None:
        """Wait for the saga to settle, as often as it takes to be told."""
        world = self._world
        request = orchestrator_pb2.GetSagaRequest(saga_id=self.key.saga_id, wait=True)
        while True:
            try:
                response = await self._caller.call(self.name, "GetSaga", request)
            except CallFailed as failed:
                world.judge.must(failed.code in UNANSWERED, f"a wait was answered {failed}")
                await world.sleep(AGAIN_S)
                continue
            world.story.tell(self.name, f"is told that {self.key.saga_id} has settled")
            world.judge.settled(self.key, response.saga.sequence)
            return

    async def _watch(self) -> None:
        """Watch to the end, going on after each break where the last one was."""
        world, after = self._world, 0
        while True:
            process = world.choose_process(f"{self.name} Watch")
            if process is not None:
                try:
                    after = await self._watch_once(process, after)
                except CallFailed as failed:
                    self._caller.look_at(self.key.saga_id, failed)
                    world.judge.must(failed.code in UNANSWERED, f"I36: a watch ended with {failed}")
                else:
                    return
                after = self._seen
            await world.sleep(AGAIN_S)

    _seen = 0

    async def _watch_once(self, process: Process, after: int) -> int:
        world = self._world
        if after:
            world.story.see("watch gone on with")
        self._seen = after

        def got(response: orchestrator_pb2.WatchSagaResponse) -> None:
            event = response.event
            world.judge.watched(self.key, self._seen, event.sequence, event.SerializeToString(deterministic=True))
            self._seen = event.sequence
            if world.dice.strikes("watch broken", f"{self.name} {self._seen}", 0.05) and not ended.done():
                ended.set_exception(CallFailed(grpc.StatusCode.UNAVAILABLE))
                asyncio.get_running_loop().call_soon(task.cancel)

        ended: asyncio.Future[None] = world.loop.create_future()
        process.waiting.append(ended)
        request = orchestrator_pb2.WatchSagaRequest(saga_id=self.key.saga_id, after_sequence=after)
        context: Any = SimulatedContext()
        task = process.spawn(process.stream(process.orchestrator.WatchSaga(request, context), got, ended))
        await ended
        world.judge.watch_ended(self.key, self._seen)
        return self._seen


class Worker:
    """A participant at work on a call: it comes to an end some time, and says so until it is answered."""

    def __init__(self, world: World, call: participant_pb2.Call) -> None:
        self._world = world
        self._call = call

    async def run(self) -> None:
        world, call = self._world, self._call
        await world.sleep(world.dice.number(f"work {call.key}", 0.1, 6.0))
        reply = world.participants.finish(call)
        if reply is None:
            return
        world.story.tell("worker", f"is done with {call.saga_id}/{call.step}")
        request = orchestrator_pb2.CompleteStepRequest(
            saga_id=call.saga_id, step=call.step, reply=reply, token=call.completion_token
        )
        while not await self._said(request):
            await world.sleep(AGAIN_S)

    async def _said(self, request: orchestrator_pb2.CompleteStepRequest) -> bool:
        """Bring the outcome; True if there is nothing more to say."""
        world, key = self._world, SagaKey(NAMESPACE, request.saga_id)
        try:
            response = await world.caller.call("worker", "CompleteStep", request)
        except CallFailed as failed:
            if failed.code in UNANSWERED or failed.reason == "CALL_IN_FLIGHT" or failed.stale:
                return False
            world.story.tell("worker", f"is refused the outcome of {request.saga_id}/{request.step}: {failed.reason}")
            world.judge.must(failed.reason == "STEP_NOT_WAITING", f"an outcome was answered {failed}")
            return True
        world.story.see("outcome brought by a token")
        world.judge.shown(key, response.saga.sequence)
        return True
