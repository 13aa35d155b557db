"""The network between orchestrator and participants: it loses, doubles, delays and reorders, and answers for others."""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from amends.testing.simulation.judge import describe as say
from amends.testing.simulation.participants import describe
from amends.v1 import participant_pb2, saga_pb2
from amends_server.engine.commands import NotSent, Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.policy import SECOND_US
from amends_server.store.protocol import SagaKey
from amends_server.transport.attempts import Attempt, Obstacle, Told, nothing
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.link import LOOK_S
from amends_server.transport.requests import Origin, compensate_request, execute_request
from amends_server.transport.verdicts import verdict_of_reply, verdict_of_status

if TYPE_CHECKING:
    from amends.testing.simulation.process import Process
    from amends.testing.simulation.world import World

STATUSES = tuple(code for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
POINTLESS = (grpc.StatusCode.ABORTED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION)
PAYLOAD_BYTES_MAX = 1 << 20

LATE_S = 30.0
"""How long a message may be under way: far longer than any timeout."""


@dataclass(eq=False)
class Call:
    """An attempt on its way. `over`: the process was told so."""

    process: Process
    attempt: Attempt
    request: participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest
    over: bool = False

    @property
    def order(self) -> CallOrder:
        return self.attempt.order

    @property
    def key(self) -> SagaKey:
        return SagaKey(self.request.call.namespace, self.request.call.saga_id)

    @property
    def stale(self) -> bool:
        """True if another process owns the saga by now, whether this one was told so or not."""
        return self.attempt.origin.epoch != self.process.world.disk.part(self.key).epoch

    @property
    def name(self) -> str:
        kind = "Compensate" if self.order.compensation else "Execute"
        call = self.request.call
        return f"{kind} {call.saga_id}/{call.step} #{call.attempt}"


class Network:
    """What the runner calls its transport, one for all processes. `under_way` counts messages to participants."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.under_way = 0

    def port(self, process: Process) -> Port:
        return Port(self, process)

    def send(self, process: Process, attempt: Attempt) -> None:
        """Send an attempt when it is its turn: some wait, as behind others at a slow participant."""
        world = self._world
        started, order = attempt.origin.started, attempt.order
        about = f"{started.saga_id}/{order.node.step.id} {order.compensation} #{order.attempt}"
        waits_s = 0.0
        if world.dice.strikes("queued", about, 0.08):
            waits_s = world.dice.number(f"queued {about}", 0.05, 4.0)
        self._wait(process, attempt, world.loop.time() + waits_s)

    def _wait(self, process: Process, attempt: Attempt, until: float) -> None:
        loop = self._world.loop
        obstacle = attempt.obstacle(process.clock.now())
        if obstacle is not None:
            self._world.story.see("call withdrawn before it was sent")
            if isinstance(obstacle, NotSent) and obstacle.delay_us:
                self._world.story.see("call put off because too many wait for its participant")
            loop.call_soon(attempt.tell, obstacle)
        elif loop.time() < until:
            loop.call_later(min(LOOK_S, until - loop.time()), self._wait, process, attempt, until)
        else:
            self._send_now(process, attempt)

    def _send_now(self, process: Process, attempt: Attempt) -> None:
        world, order = self._world, attempt.order
        if process.dead or world.effect(process, "crash between intent and send"):
            return
        attempt.begin(process.clock.now())
        make = compensate_request if order.compensation else execute_request
        call = Call(process, attempt, make(order, attempt.origin, attempt.expire_time))
        world.judge.sent(attempt.origin.epoch, order, call.request, stale=call.stale)
        world.story.tell("network", f"{call.name} is sent")
        world.loop.call_later(attempt.timeout_us / SECOND_US, self._time_is_up, call, context=process.context)
        self._carry(call)
        world.effect(process, "crash after a send")

    def _carry(self, call: Call) -> None:
        """Decide what becomes of the request."""
        dice, about = self._world.dice, call.name
        if dice.strikes("half-open", about, 0.05):
            self._see(call, "half-open call", "gets no answer")
            return
        if dice.strikes("unavailable", about, 0.05):
            self._answer_by_status(call, grpc.StatusCode.UNAVAILABLE)
            return
        if dice.strikes("status before", about, 0.02):
            self._answer_by_status(call, dice.choose(f"status {about}", STATUSES))
            return
        delay_s = dice.number(f"delay {about}", 0.001, 0.02)
        if dice.strikes("late", about, 0.06):
            delay_s = dice.number(f"late {about}", 0.5, LATE_S)
        self._deliver(call, delay_s, answers=True)
        if dice.strikes("twice", about, 0.05):
            self._deliver(call, delay_s + dice.number(f"twice {about}", 0.0, LATE_S), answers=False)

    def _deliver(self, call: Call, delay_s: float, *, answers: bool) -> None:
        self.under_way += 1
        self._world.loop.call_later(delay_s, self._land, call, answers, context=Context())

    def _land(self, call: Call, answers: bool) -> None:
        """The request is there: its effect happens, and the answer sets out."""
        self.under_way -= 1
        world = self._world
        reply: saga_pb2.Reply | None
        if isinstance(call.request, participant_pb2.ExecuteRequest):
            reply = world.participants.execute(call.request)
        else:
            reply = world.participants.compensate(call.request)
        world.story.tell(call.order.node.step.participant, f"{call.name} has landed: {_status(reply)}")
        if call.process.dead:
            world.story.see("answer to a dead process")
        if not answers or world.dice.strikes("answer lost", call.name, 0.05):
            return
        if world.dice.strikes("status after", call.name, 0.03):
            self._answer_by_status(call, world.dice.choose(f"status {call.name}", (*STATUSES, *POINTLESS)))
            return
        if world.dice.strikes("unreadable", call.name, 0.02):
            self._see(call, "unreadable reply", "gets an answer that cannot be read")
            reply = world.dice.choose(f"unreadable {call.name}", (None, saga_pb2.Reply()))
        self._answer(call, verdict_of_reply(call.order.node.step.participant, reply, PAYLOAD_BYTES_MAX))

    def _answer_by_status(self, call: Call, code: grpc.StatusCode) -> None:
        if code in POINTLESS:
            self._world.story.see("pointless status")
        participant, compensation = call.order.node.step.participant, call.order.compensation
        self._answer(call, verdict_of_status(participant, code, "simulated", compensation=compensation))

    def _answer(self, call: Call, verdict: Verdict) -> None:
        dice = self._world.dice
        delay_s = dice.number(f"answer {call.name}", 0.001, 0.02)
        if dice.strikes("answer late", call.name, 0.04):
            delay_s = dice.number(f"answer late {call.name}", 0.5, 5.0)
        self._world.loop.call_later(delay_s, self._told, call, verdict, context=call.process.context)

    def _time_is_up(self, call: Call) -> None:
        if not call.over:
            participant, compensation = call.order.node.step.participant, call.order.compensation
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            self._told(call, verdict_of_status(participant, code, "", compensation=compensation))

    def _told(self, call: Call, verdict: Verdict) -> None:
        world, process = self._world, call.process
        if world.effect(process, "crash between answer and record"):
            return
        world.story.tell(process.name, f"is told of {call.name}: {say(verdict)}")
        if call.stale:
            world.story.see("answer to a process that was succeeded")
        if call.over:
            world.story.see("answer after the attempt was over")
            process.take_late(call.attempt.late(), verdict)
        else:
            call.over = True
            world.judge.over(call.attempt.origin.epoch, call.order, call.key)
            call.attempt.tell(verdict)
        world.effect(process, "crash after an answer was taken")

    def _see(self, call: Call, state: str, what: str) -> None:
        self._world.story.see(state)
        self._world.story.tell("network", f"{call.name} {what}")


class Port:
    """A process's own end of the network: what `Participants` takes for its transport."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def send(
        self, endpoint: Endpoint, order: CallOrder, origin: Origin, told: Told, in_its_way: Obstacle = nothing
    ) -> None:
        self._network.send(self._process, Attempt(order, origin, told, in_its_way))

    async def close(self) -> None:
        """Nobody hangs on it: the process ends."""

    async def describe(self, endpoint: Endpoint, timeout_s: float) -> participant_pb2.DescribeResponse:
        return describe(endpoint.name, self._process.world.subject.definitions)


def _status(reply: saga_pb2.Reply) -> str:
    name = saga_pb2.ReplyStatus.Name(reply.status).removeprefix("REPLY_STATUS_")
    return name + (", stored" if reply.stored else "")
