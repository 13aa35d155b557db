"""Simulated participants: business effects behind a barrier that makes each key effective once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from amends.testing.simulation.dice import Dice
from amends.testing.simulation.story import Story
from amends.testing.simulation.subject import Give
from amends.v1 import participant_pb2, payload_pb2, saga_pb2
from amends_server.engine.definition import Definition
from amends_server.engine.events import Resolution, StepResolved
from amends_server.engine.key import call_key
from amends_server.store.protocol import SagaKey


@dataclass
class Entry:
    """What a participant holds under an Execute's key.

    `reply` is what it answered, if that is stored; `at_work` what it answers while it is at work. `refused` are
    attempts that were refused without storing that: a copy of one is refused again, another is not.
    """

    effects: int = 0
    tombstone: bool = False
    at_work: saga_pb2.Reply | None = None
    reply: saga_pb2.Reply | None = None
    refused: set[int] = field(default_factory=set[int])


class Participants:
    """All of them, with one ledger."""

    def __init__(
        self,
        dice: Dice,
        story: Story,
        give: Give,
        fail: Callable[[str], None],
        work: Callable[[participant_pb2.Call], None],
    ) -> None:
        self._give = give
        self._dice = dice
        self._story = story
        self._fail = fail
        self._work = work
        self._ledger: dict[str, Entry] = {}

    def effects(self, key: SagaKey, step: str) -> int:
        """Count the effects that a step has now."""
        entry = self._ledger.get(call_key(key.namespace, key.saga_id, step, compensation=False))
        return entry.effects if entry else 0

    def put_right(self, key: SagaKey, event: StepResolved) -> None:
        """An operator tells the truth: what they say was made so by hand."""
        entry = self._entry(call_key(key.namespace, key.saga_id, event.step, compensation=False))
        match event.resolution:
            case Resolution.SUCCEEDED:
                entry.effects, entry.reply = 1, self._success(event.step)
            case Resolution.COMPENSATED:
                entry.effects, entry.tombstone = 0, True
            case Resolution.SKIPPED:
                pass

    def execute(self, request: participant_pb2.ExecuteRequest) -> saga_pb2.Reply:
        entry = self._entry(request.call.key)
        if entry.tombstone:
            self._story.see("late Execute refused by the tombstone")
            return _refusal("UNDONE", stored=True)
        if entry.reply is not None:
            self._story.see("duplicate Execute answered from the barrier")
            return entry.reply
        if entry.at_work is not None:
            return entry.at_work
        if request.call.attempt in entry.refused:
            return _refusal("NO", stored=False)
        reply = self._trouble(request.call) or self._success(request.call.step, request.call.key)
        if reply.status == saga_pb2.REPLY_STATUS_IN_PROGRESS:
            entry.at_work = reply
        elif reply.status == saga_pb2.REPLY_STATUS_ERROR and not reply.stored:
            entry.refused.add(request.call.attempt)
        else:
            self._keep(entry, reply, request.call.key)
        return reply

    def finish(self, call: participant_pb2.Call) -> saga_pb2.Reply | None:
        """Come to the end of the work on a call; None if it was undone meanwhile."""
        entry = self._entry(call.key)
        if entry.tombstone or entry.reply is not None:
            return None
        refused = self._dice.strikes("work refused", call.key, 0.2)
        reply = _refusal("NO", stored=True) if refused else self._success(call.step, call.key)
        entry.at_work = None
        self._keep(entry, reply, call.key)
        return reply

    def _keep(self, entry: Entry, reply: saga_pb2.Reply, key: str) -> None:
        """Have the effect of a reply, and store it."""
        if reply.status == saga_pb2.REPLY_STATUS_SUCCESS:
            entry.effects += 1
        if reply.status == saga_pb2.REPLY_STATUS_SUCCESS or reply.stored:
            entry.reply = reply
        if entry.effects > 1:
            self._fail(f"I13: {entry.effects} effects under {key}")

    def compensate(self, request: participant_pb2.CompensateRequest) -> saga_pb2.Reply:
        about = request.call.key
        if self._dice.strikes("compensation refused", about, 0.05):
            self._story.see("compensation refused")
            return _refusal("WILL_NOT", stored=False)
        if self._dice.strikes("compensation breaks", about, 0.05):
            return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR)
        if request.execute_key not in self._ledger:
            self._story.see("Compensate of what never executed")
        entry = self._entry(request.execute_key)
        entry.effects, entry.tombstone = 0, True
        return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS)

    def _trouble(self, call: participant_pb2.Call) -> saga_pb2.Reply | None:
        about = call.key
        if self._dice.strikes("refused", about, 0.08):
            self._story.see("business error")
            return _refusal("NO", stored=self._dice.choose(f"stored {about}", (True, False)))
        if self._dice.strikes("system error", about, 0.05):
            return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR)
        if self._dice.strikes("in progress", about, 0.03):
            self._story.see("reply in progress")
            self._work(call)
            polled = Duration(seconds=1) if self._dice.choose(f"polled {about}", (True, False)) else None
            return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_IN_PROGRESS, poll_interval=polled)
        return None

    def _success(self, step: str, key: str = "") -> saga_pb2.Reply:
        output = payload_pb2.Payload(json=self._give(step, key))
        return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=output)

    def _entry(self, key: str) -> Entry:
        return self._ledger.setdefault(key, Entry())


def describe(name: str, definitions: tuple[Definition, ...]) -> participant_pb2.DescribeResponse:
    """Return what a participant says of itself."""
    steps = {step.action: step for each in definitions for step in each.steps if step.participant == name}
    actions = [participant_pb2.ActionDescription(name=action, has_compensation=True) for action in sorted(steps)]
    return participant_pb2.DescribeResponse(participant=name, actions=actions)


def _refusal(code: str, *, stored: bool) -> saga_pb2.Reply:
    return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=payload_pb2.Error(code=code), stored=stored)
