"""A world of one seed: the real server, and a simulated disk, network, clock, participants, clients and accidents.

Everything runs in one thread, in virtual time. First faults happen; then all is calm, and every saga has to end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

import grpc
import structlog

from amends.testing.simulation.accidents import Accidents
from amends.testing.simulation.clients import Caller, Client, SagaSpoilt, Worker
from amends.testing.simulation.dice import Dice
from amends.testing.simulation.disk import Disk
from amends.testing.simulation.judge import Judge
from amends.testing.simulation.loop import VirtualLoop
from amends.testing.simulation.network import Network
from amends.testing.simulation.operators import Operator
from amends.testing.simulation.participants import Participants
from amends.testing.simulation.process import CallFailed, Process, SimulatedClock
from amends.testing.simulation.story import Story
from amends.testing.simulation.subject import Subject
from amends.v1 import participant_pb2
from amends_server.engine.definition import Definition
from amends_server.store.protocol import StoreError

SAGAS_MAX = 5
FAULTS_S = 25.0
"""How long faults go on: some sagas end in that time, others meet all kinds of them."""

CALM_S = 200.0
"""In which every saga must end once faults are over, beside the delays of its steps: the longest policy takes 20 s, a
few times with operators."""

HAND_OVER_S = 0.5
"""Until somebody looks whether partitions have no owner."""

REST_S = 70.0
"""In which everything that was late has landed."""


class World:
    """Runs once. `violation` says what was wrong, if anything was."""

    def __init__(self, dice: Dice, subject: Subject, *, crash_at: frozenset[int] = frozenset()) -> None:
        self.dice = dice
        self.subject = subject
        self.loop = VirtualLoop()  # type: ignore[abstract]  # what nobody here calls is left out
        self.story = Story(self.loop.time)
        self.clock = SimulatedClock(self.loop)
        self.participants = Participants(dice, self.story, subject.give, self.fail, self._begin_work)
        self.judge = Judge(self.story, subject.graphs, self.participants.put_right)
        self.disk = Disk(self.judge.appended)
        self.network = Network(self)
        self.caller = Caller(self)
        self.process: Process | None = None
        self.succeeded: list[Process] = []
        """Processes that have lost partitions to another one, and go on with what they have, or believe to have."""
        self.effects: list[str] = []
        self._crash_at = crash_at
        self._starts = 0
        self._restarting: asyncio.Task[None] | None = None

    @property
    def violation(self) -> str:
        return self.judge.violation

    def fail(self, what: str) -> None:
        """Note what is wrong, unless something was before."""
        self.judge.violation = self.judge.violation or what

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the world to its end, or until something is wrong."""
        with _logs(self._logged):
            try:
                self.loop.run(work, lambda: not self.violation and not self.loop.problems)
            except AssertionError as error:
                self.fail(str(error))
            for problem in self.loop.problems:
                self.fail(problem)
            self.loop.close()

    async def live(
        self, clients: list[tuple[Definition, float]], *, faults_s: float = FAULTS_S, accidents: bool = True
    ) -> None:
        """Let clients start these sagas at these times, let faults happen, and then see to it that all ends."""
        self.up()
        people = [Client(self, n, definition).run(at_s) for n, (definition, at_s) in enumerate(clients, start=1)]
        work = [self.background(person, "client") for person in people]
        kinds = (*Accidents(self).all(), Operator(self).meddle()) if accidents else ()
        happening = [self.background(each, "accident") for each in kinds]
        await self.sleep(faults_s)
        for accident in happening:
            accident.cancel()
        self.calm()
        calm_s = CALM_S + self.subject.delays_s
        try:
            async with asyncio.timeout(calm_s):
                await asyncio.gather(*work)
                await Operator(self).set_right()
        except TimeoutError:
            left = sorted(key.saga_id for key in self.judge.unfinished())
            raise AssertionError(f"I28, I39: {left or 'clients'} did not come to an end in {calm_s} s") from None
        await self._rest()

    def calm(self) -> None:
        """End all faults."""
        self.story.tell("world", "is calm")
        self.dice.calm = True
        self.disk.down = self.disk.full = False
        if self.process is not None and self.process.frozen:
            self.loop.thaw(self.process)

    async def _rest(self) -> None:
        """Let everything late land, and look at what is left."""
        await self.sleep(REST_S)
        assert self.network.under_way == 0, "messages are under way, and nothing should be"
        self.judge.at_rest(self.participants.effects)
        process = self.process
        assert process is not None
        assert process.active_count == 0, f"I42: {process.active_count} sagas are in memory, and all have ended"
        assert process.halted.keys() <= self.judge.spoilt, f"I34: halted: {process.halted}"

    # What parts of the world need of it

    def background(self, work: Coroutine[Any, Any, Any], who: str) -> asyncio.Task[Any]:
        """Run something beside; what it asserts is the world's."""
        task: asyncio.Task[Any] = self.loop.create_task(_unless_spoilt(work), name=who, context=_nobodys())
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(str(error) if isinstance(error, AssertionError) else f"{task.get_name()} broke: {error!r}")

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    async def never(self) -> None:
        """Wait for ever, as code does whose process is dead."""
        await self.loop.create_future()

    def effect(self, process: Process, kind: str, chance: float = 0.008) -> bool:
        """Something is about to happen, or has just happened: tell whether the process dies here."""
        if process.dead:
            return True
        self.effects.append(kind)
        about = f"{kind} {len(self.effects)}"
        if len(self.effects) not in self._crash_at and not self.dice.strikes("crash", about, chance):
            return False
        self.story.see(kind)
        self.story.tell(process.name, kind)
        self.crash(process)
        return True

    async def maybe_overtaken(self, process: Process, where: str, about: str) -> None:
        """Hold a process up here, now and then, for so long that another one takes its place meanwhile."""
        if process is self.process and process.ready and self.dice.strikes(f"overtaken {where}", about, 0.01):
            self.overtake(process)
            await self.sleep(0)

    def _begin_work(self, call: participant_pb2.Call) -> None:
        self.background(Worker(self, call).run(), "worker")

    # Processes

    def choose_process(self, about: str) -> Process | None:
        """Return one of the processes that take calls, the last one or one that it has succeeded; None if none does."""
        ready = [process for process in (self.process, *self.succeeded) if process is not None and process.ready]
        return ready[0] if len(ready) == 1 else self.dice.choose(f"process for {about}", ready) if ready else None

    def up(self) -> None:
        """Start a process, and see that there is one from now on."""
        self._starts += 1
        self._restarting = asyncio.create_task(self._bring_up(), context=_nobodys())

    def crash(self, process: Process) -> None:
        """Kill a process: nothing of it runs any more, and what it had in memory is gone."""
        process.dead = True
        for future in process.waiting:
            if not future.done():
                future.set_exception(CallFailed(grpc.StatusCode.UNAVAILABLE))
        if process is not self.process:  # it has a successor
            self.succeeded.remove(process)
            self._hand_over()
            return
        self.process = None
        down_s = self.dice.number("down", 0.05, 1.0)
        if self.dice.strikes("long down", str(self._starts), 0.2):
            down_s = self.dice.number("long down", 3.0, 12.0)
        if self.dice.strikes("record spoilt", str(self._starts), 0.02):
            self._spoil()
        self.loop.call_later(down_s, self.up, context=_nobodys())

    def _hand_over(self) -> None:
        """See to it that what a dead process has kept is taken over by the last one, when there is one."""
        if all(part.owned for part in self.disk.parts):
            return
        if self.process is not None and self.process.ready:
            self.loop.call_soon(self.process.claim, context=self.process.context)
        self.loop.call_later(HAND_OVER_S, self._hand_over, context=_nobodys())

    async def _bring_up(self) -> None:
        """Start processes until one stays."""
        while True:
            process = Process(self, f"server-{self._starts}")
            self.process = process
            starting = process.spawn(process.start())
            while not process.dead and not starting.done():
                await self.sleep(0.001)
            if process.dead:
                return
            if starting.exception() is None:
                self.story.tell(process.name, "is up")
                self.judge.up_since = self.clock.now()
                return
            self.story.tell(process.name, f"does not come up: {starting.exception()}")
            if not isinstance(starting.exception(), StoreError):
                self.fail(f"{process.name} does not come up: {starting.exception()!r}")
            process.dead = True
            await self.sleep(0.5)

    async def drain(self) -> None:
        """Stop the process as SIGTERM does, and start another one."""
        process = self.process
        if process is None or not process.ready or process.frozen:
            return
        self.story.tell(process.name, "is stopped")
        drained = process.spawn(process.drain())
        while not process.dead and not drained.done():
            await self.sleep(0.01)
        if not process.dead:
            assert drained.exception() is None, f"draining broke: {drained.exception()!r}"
            self.story.see("drained")
            self.crash(process)

    # Accidents

    def _spoil(self) -> None:
        """Make an unfinished saga's journal unreadable: it must stop, and nothing else."""
        alive = [key for key, known in self.judge.sagas.items() if not known.final]
        if alive and not self.judge.spoilt:
            key = self.dice.choose("spoilt saga", alive)
            self.story.see("record spoilt")
            self.story.tell("disk", f"the last record of {key.saga_id} is spoilt")
            self.judge.spoilt.add(key)
            self.disk.spoil(key)

    def overtake(self, process: Process) -> None:
        """Freeze a process for longer than its lease lasts."""
        self.story.tell(process.name, "is frozen, for longer than its lease")
        self.loop.freeze(process)
        self.background(self._succeed(process), "successor")

    async def _succeed(self, process: Process) -> None:
        """Start another process in the place of a frozen one, which then goes on beside it, and is told so late.

        The other one may get to some partitions only: of those left the first one is still the owner.
        """
        await self.sleep(self.dice.number("lease", 0.3, 3.0))
        if process.dead or not process.frozen:
            return
        lost = self._lose_lease(process)
        self.up()
        await self.sleep(self.dice.number("frozen beside", 0.0, 3.0))
        self.loop.thaw(process)
        self.story.tell(process.name, "goes on, and knows of no other")
        await self.sleep(self.dice.number("knows of no other", 0.0, 4.0))
        if not process.dead:
            self.story.tell(process.name, "is told that it was succeeded")
            self.loop.call_soon(process.lease.lose, lost, context=process.context)
        await self.sleep(self.dice.number("idle", 0.0, 2.0))
        if not process.dead:
            self.story.tell(process.name, "is killed")
            self.crash(process)

    def _lose_lease(self, process: Process) -> list[int]:
        owned = [number for number, part in enumerate(self.disk.parts) if part.owner is process]
        lost = [part for part in owned if not self.dice.strikes("partition kept", f"{process.name} {part}", 0.4)]
        for number in lost:
            self.disk.parts[number].over = True
        self.succeeded.append(process)
        self.story.tell(process.name, f"has lost its lease on the partitions {lost} of {owned}")
        if 0 < len(lost) < len(owned):
            self.story.see("lease lost on some partitions and kept on others")
        return lost

    def _logged(self, record: dict[str, Any]) -> None:
        if any(record.get("saga_id") == key.saga_id for key in self.judge.spoilt):
            return
        self.fail(f"I34: the server logged an error: {record}")


def sagas_of(dice: Dice, subject: Subject) -> list[tuple[Definition, float]]:
    """Which sagas a seed starts, and when."""
    return [
        (dice.choose(f"definition {n}", subject.definitions), dice.number(f"start {n}", 0.05, 12.0))
        for n in range(1, SAGAS_MAX + 1)
        if n == 1 or dice.strikes("saga", str(n), 0.5)
    ]


async def _unless_spoilt(work: Coroutine[Any, Any, Any]) -> None:
    with suppress(SagaSpoilt):
        await work


def _nobodys() -> Context:
    """A context that belongs to no process."""
    return Context()


@contextmanager
def _logs(error: Callable[[dict[str, Any]], None]) -> Generator[None]:
    """Hand errors that are logged to the world, and drop the rest."""

    def process(logger: object, method: str, record: Any) -> Any:
        error(dict(record))
        raise structlog.DropEvent

    before = structlog.get_config()
    wrapper = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(processors=[process], wrapper_class=wrapper, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
