"""The rule of the barrier, once for all databases: the effect and its verdict in one transaction.

    Execute     key is new         the effect happens, and its reply is kept
                key has a verdict  the kept reply, and no effect
                key was undone     refused, and no effect
                refused for now    nothing is kept: the key stays new
    Compensate  key is new         no effect; the key counts as undone, so that a late Execute is refused
                key succeeded      the effect is undone, and the reply is kept
                otherwise          there is nothing to undo

Both begin by inserting the key or changing its row, never by reading it. So of two calls at the same time one waits in
the database for the end of the other, whatever they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from amends.barrier._database import Database, ended, has_state, run_again_on_conflict
from amends.barrier._statements import ENTER, READ, SETTLE, UNDO
from amends.errors import BarrierError, Refused
from amends.v1 import payload_pb2, saga_pb2

Tx = TypeVar("Tx")

UNDONE_CODE = "UNDONE"

Refuse = Callable[[Refused], saga_pb2.Reply]


async def execute(
    database: Database[Tx], key: str, effect: Callable[[Tx], Awaitable[saga_pb2.Reply]], refuse: Refuse
) -> saga_pb2.Reply:
    """Have the effect once for the key; give its reply, now and whenever the key comes again.

    :raises BarrierError: the table cannot be right, or the effect ended the transaction.
    :raises Refused: another attempt may do better; nothing is kept.
    """

    async def run() -> saga_pb2.Reply:
        async with database.transaction() as tx:
            if not await database.fetch(tx, ENTER, key=key, state="begun"):
                return await _kept(database, tx, key)
            state, reply = await _had(database, tx, effect, refuse)
            await _settle(database, tx, key, "begun", state, reply)
        return reply

    return await run_again_on_conflict(database, run)


async def compensate(
    database: Database[Tx],
    key: str,
    undo: Callable[[Tx, saga_pb2.Reply], Awaitable[saga_pb2.Reply]],
    *,
    known: bool,
) -> saga_pb2.Reply:
    """Undo the effect of the key once, and see to it that it never happens later.

    `undo` gets the reply of the action. `known` says that the caller knows the action to have succeeded.

    :raises BarrierError: the table cannot be right, or `undo` ended the transaction.
    """

    async def run() -> saga_pb2.Reply:
        async with database.transaction() as tx:
            if await database.fetch(tx, ENTER, key=key, state="undone"):
                check_never_had(key, known=known)
                return nothing_to_undo()
            rows = await database.fetch(tx, UNDO, key=key)
            if not rows:
                return already_undone(key, *await read(database, tx, key))
            async with database.savepoint(tx):
                reply = await undo(tx, parsed(rows[0][0]))
            await _settle(database, tx, key, "undoing", "undone", reply)
        return reply

    return await run_again_on_conflict(database, run)


async def read(database: Database[Tx], tx: Tx, key: str) -> tuple[str, bytes | None]:
    """The state and the reply of a key that was there a moment ago.

    :raises BarrierError: it is not there any more.
    """
    rows = await database.fetch(tx, READ, key=key)
    if not rows:
        raise BarrierError("the verdict of this call was forgotten in the moment in which it was asked for")
    return cast("tuple[str, bytes | None]", tuple(rows[0]))


def parsed(reply: object) -> saga_pb2.Reply:
    return saga_pb2.Reply.FromString(bytes(cast(bytes, reply)))


def kept_reply(key: str, state: str, reply: bytes | None) -> saga_pb2.Reply:
    """What an Execute is answered that finds a verdict.

    :raises BarrierError: there is none.
    """
    match state:
        case "succeeded" | "refused":
            return parsed(reply)
        case "undone" | "undoing":
            return _undone()
        case _:
            raise _left_open(key, state)


def already_undone(key: str, state: str, reply: bytes | None) -> saga_pb2.Reply:
    """What a Compensate is answered that finds nothing to undo.

    :raises BarrierError: there may be something.
    """
    match state:
        case "undone" if reply is not None:
            return parsed(reply)
        case "undone" | "refused":
            return nothing_to_undo()
        case _:
            raise _left_open(key, state)


def nothing_to_undo() -> saga_pb2.Reply:
    return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS, output=payload_pb2.Payload(), stored=True)


def check_never_had(key: str, *, known: bool) -> None:
    """:raises BarrierError: the action is known to have succeeded, and yet there is no verdict."""
    if known:
        raise BarrierError(
            f"the action of key {key} is known to have succeeded, and its verdict is gone: it was forgotten too early, "
            "or this is another database; what it did has to be undone by hand"
        )


async def _had(
    database: Database[Tx], tx: Tx, effect: Callable[[Tx], Awaitable[saga_pb2.Reply]], refuse: Refuse
) -> tuple[str, saga_pb2.Reply]:
    """Have the effect; of one that is refused nothing stays but the refusal.

    :raises Refused: it is refused for now, or by a conflict: then nothing stays at all.
    """
    try:
        async with database.savepoint(tx):
            return "succeeded", await effect(tx)
    except Refused as refused:
        if refused.again or has_state(refused):  # one that is made of a conflict says nothing of the business
            raise
        return "refused", refuse(refused)
    raise ended()


async def _settle(database: Database[Tx], tx: Tx, key: str, before: str, state: str, reply: saga_pb2.Reply) -> None:
    reply.stored = True
    settled = await database.fetch(
        tx, SETTLE, key=key, before=before, state=state, reply=reply.SerializeToString(deterministic=True)
    )
    if not settled:
        raise ended()


async def _kept(database: Database[Tx], tx: Tx, key: str) -> saga_pb2.Reply:
    return kept_reply(key, *await read(database, tx, key))


def _undone() -> saga_pb2.Reply:
    error = payload_pb2.Error(code=UNDONE_CODE, message="This call was undone; it has no effect any more.")
    return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=error, stored=True)


def _left_open(key: str, state: str) -> BarrierError:
    return BarrierError(
        f"nobody knows what became of key {key} ({state}): its handler committed the transaction of the barrier, "
        "or kept its intents in another way"
    )
