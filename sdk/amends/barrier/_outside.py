"""The rule for effects outside the database: the intent first, in a transaction of its own; the outcome afterwards.

Nothing can make an effect elsewhere and a row here stand or fall together. So the row says at least that the effect was
begun. One attempt at a time holds the row, for a bounded time; whoever finds an intent without outcome after that is
told that it is `repeated`, and has to find out before it does anything.

    Execute     key is new         keep the intent, have the effect, keep its reply
                key is intended    the same, repeated
                key has a verdict  the kept reply, and no effect
                key was undone     refused, and no effect; also if its undoing was only begun
                another input      an error, and no effect
                refused for now    the intent is withdrawn; one that is repeated stays, for what was begun before
    Compensate  key is new         no effect; the key counts as undone
                key succeeded      keep the intent to undo, undo, keep the reply
                key is intended    the same, without an output: nobody knows what became of the action
                key is undoing     the same, repeated
                another input      an error if there is, or may be, something to undo
                otherwise          there is nothing to undo
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from amends.barrier._database import Database, run_again_on_conflict
from amends.barrier._rule import (
    Refuse,
    Subject,
    already_undone,
    check_may_execute,
    check_may_undo,
    check_never_had,
    enter,
    kept_reply,
    nothing_to_undo,
    parsed,
    read,
)
from amends.barrier._statements import CLAIM, ENTER, FINISH, INTEND, RELEASE, WITHDRAW, Statement, Value
from amends.errors import BarrierError, Refused
from amends.v1 import saga_pb2

Tx = TypeVar("Tx")
T = TypeVar("T")

TO_UNDO = ("succeeded", "intended", "undoing")


@dataclass(frozen=True, slots=True)
class Intent:
    """What a handler is told of an effect outside the database, beside the call.

    `repeated` says that an earlier attempt began the same and nobody knows how it ended: first find out, by `call.key`
    for instance, whether the effect is there. If that cannot be told, raise anything but `Refused`: the call comes
    again.
    """

    repeated: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A row that this attempt may work on. `reply` is that of the action, if it is known.

    `since` is on the monotonic clock, and never later than by that of the database: others wait for as long as they are
    told there, however slow the commit was.
    """

    key: str
    holder: str
    since: float
    intent: Intent
    reply: saga_pb2.Reply | None


class Rule(Generic[Tx]):
    """The rule on a database. `hold_s` is how long one attempt may work on a row."""

    def __init__(self, database: Database[Tx], hold_s: float) -> None:
        if not 0 < hold_s < math.inf:
            raise ValueError(f"hold_s must be a number of seconds above 0, not {hold_s}")
        self._database = database
        self._hold_s = hold_s

    async def execute(
        self, subject: Subject, effect: Callable[[Intent], Awaitable[saga_pb2.Reply]], refuse: Refuse
    ) -> saga_pb2.Reply:
        """Have the effect unless the key has a verdict; give the reply, now and whenever the key comes again.

        :raises KeyTaken: the key was used with another input.
        :raises BarrierError: another attempt is at it, or took over meanwhile.
        :raises Refused: another attempt may do better; the refusal is not kept.
        """
        held = await self._in_transaction(partial(self._intend, subject))
        if isinstance(held, saga_pb2.Reply):
            return held
        async with self._released(held):
            try:
                state, reply = "succeeded", await self._in_time(held, partial(effect, held.intent))
            except Refused as refused:
                if refused.again:
                    await self._withdraw(held)
                    raise
                state, reply = "refused", refuse(refused)
            return await self._finish(held, state, reply)

    async def compensate(
        self,
        subject: Subject,
        undo: Callable[[Intent, saga_pb2.Reply | None], Awaitable[saga_pb2.Reply]],
        *,
        known: bool,
    ) -> saga_pb2.Reply:
        """Undo what the key did or may have done, and see to it that it never happens later.

        `undo` gets the reply of the action, None if nobody knows what became of it. `known` says that the caller knows
        the action to have succeeded.

        :raises KeyTaken: there is or may be something to undo, and it was done with another input.
        :raises BarrierError: another attempt is at it, or took over meanwhile.
        """
        held = await self._in_transaction(partial(self._take_to_undo, subject, known=known))
        if isinstance(held, saga_pb2.Reply):
            return held
        async with self._released(held):
            reply = await self._in_time(held, partial(undo, held.intent, held.reply))
            return await self._finish(held, "undone", reply)

    async def _in_time(self, held: Held, work: Callable[[], Awaitable[saga_pb2.Reply]]) -> saga_pb2.Reply:
        """Do the work of an attempt. Plain code runs to its end."""
        return await work()

    async def _intend(self, subject: Subject, tx: Tx) -> Held | saga_pb2.Reply:
        """Take the row for an Execute, or give the reply that is there."""
        key, holder, since = subject.key, uuid.uuid4().hex, time.monotonic()
        if await enter(self._database, tx, INTEND, subject, holder=holder, hold_s=self._hold_s):
            return Held(key, holder, since, Intent(repeated=False), None)
        if rows := await self._claim(tx, key, holder, "intended", "intended"):
            [(_, digest)] = rows
            check_may_execute(subject, digest)
            return Held(key, holder, since, Intent(repeated=True), None)
        row = await read(self._database, tx, key)
        if row.state == "intended":
            check_may_execute(subject, row.digest)
            raise _busy(key)
        return kept_reply(subject, row)

    async def _take_to_undo(self, subject: Subject, tx: Tx, *, known: bool) -> Held | saga_pb2.Reply:
        """Take the row for a Compensate, or give the reply that is there."""
        if await enter(self._database, tx, ENTER, subject, state="undone"):
            check_never_had(subject.key, known=known)
            return nothing_to_undo()
        key, holder, since = subject.key, uuid.uuid4().hex, time.monotonic()
        for before in TO_UNDO:
            if rows := await self._claim(tx, key, holder, before, "undoing"):
                [(reply, digest)] = rows
                check_may_undo(subject, digest)
                return Held(key, holder, since, Intent(repeated=before == "undoing"), parsed(reply) if reply else None)
        row = await read(self._database, tx, key)
        if row.state in TO_UNDO:
            check_may_undo(subject, row.digest)
            raise _busy(key)
        return already_undone(subject, row)

    async def _claim(self, tx: Tx, key: str, holder: str, before: str, state: str) -> Sequence[Sequence[object]]:
        return await self._database.fetch(
            tx, CLAIM, key=key, holder=holder, before=before, state=state, hold_s=self._hold_s
        )

    @asynccontextmanager
    async def _released(self, held: Held) -> AsyncGenerator[None, None]:
        """Have what leaves the block without an outcome be taken up at once by the next attempt."""
        try:
            yield
        except BaseException:
            await self._change(held, RELEASE)
            raise

    async def _withdraw(self, held: Held) -> None:
        """Take back the intent of an effect that was not had.

        One that is repeated stays: the attempt before, if it still runs, may have the effect, and somebody must look.
        """
        if not held.intent.repeated:
            await self._change(held, WITHDRAW)

    async def _finish(self, held: Held, state: str, reply: saga_pb2.Reply) -> saga_pb2.Reply:
        reply.stored = True
        if not await self._change(held, FINISH, state=state, reply=reply.SerializeToString(deterministic=True)):
            raise BarrierError("the attempt took longer than it may hold its intent, and another one took over")
        return reply

    async def _change(self, held: Held, statement: Statement, **parameters: Value) -> bool:
        async def change(tx: Tx) -> bool:
            return bool(await self._database.fetch(tx, statement, key=held.key, holder=held.holder, **parameters))

        return await self._in_transaction(change)

    async def _in_transaction(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self._database.transaction() as tx:
                return await work(tx)

        return await run_again_on_conflict(self._database, run)


class BoundedRule(Rule[Tx]):
    """The rule for asynchronous handlers, which are cancelled when they may not work on the row any more."""

    async def _in_time(self, held: Held, work: Callable[[], Awaitable[saga_pb2.Reply]]) -> saga_pb2.Reply:
        left_s = held.since + self._hold_s - time.monotonic()
        if left_s <= 0:  # somebody else may have begun
            raise TimeoutError
        async with asyncio.timeout(left_s):
            return await work()


def _busy(key: str) -> BarrierError:
    return BarrierError(f"another attempt is at key {key}, or was and ended without a word; ask again later")
