"""The rule of the barrier, once for all databases: the effect and its verdict in one transaction.

    Execute     key is new         the effect happens, and its reply is kept
                key has a verdict  the kept reply, and no effect
                key was undone     refused, and no effect
                another input      an error, and no effect
                refused for now    nothing is kept: the key stays new
    Compensate  key is new         no effect; the key counts as undone, so that a late Execute is refused
                key succeeded      the effect is undone, and the reply is kept
                another input      an error if there is, or may be, something to undo
                otherwise          there is nothing to undo

A key that comes with another input than before is that of another saga: ids were used again, or the orchestrator's
store began anew. What was kept is no answer to it, and what was done is not its own to undo. Nor is it refused: a saga
takes a refusal for the proof that nothing is left of it, and rules may go on with one.

Both begin by inserting the key or changing its row, never by reading it. So of two calls at the same time one waits in
the database for the end of the other, whatever they are.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from amends.barrier._database import Database, ended, has_state, lacks_digest, run_again_on_conflict
from amends.barrier._statements import ENTER, READ, SETTLE, TABLE, UNDO, Statement, Value
from amends.errors import BarrierError, Refused
from amends.v1 import payload_pb2, saga_pb2

Tx = TypeVar("Tx")

UNDONE_CODE = "UNDONE"

# Both stand in a gRPC status and in a saga's error, which hold no more than 500 characters.
EXECUTE_TAKEN = (
    "the key of this call is taken: it came with another input before, of another saga with this id. Nothing was done "
    "now. Start again under an id that was never used; whoever empties the orchestrator's store has to empty "
    f"{TABLE}, too"
)
COMPENSATE_TAKEN = (
    "what was done under this key was done with another input, so it is that of another saga with this id, or is not "
    "to be undone with this input: it was left as it is. Look whether there is something of this saga's to undo by "
    "hand, then resolve the step as compensated"
)

log = logging.getLogger("amends.participant")

Refuse = Callable[[Refused], saga_pb2.Reply]


@dataclass(frozen=True, slots=True)
class Subject:
    """The action that a call is about: the key of its Execute, and a digest of what it is called with."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of an action."""

    state: str
    reply: bytes | None
    digest: bytes | None


class KeyTaken(BarrierError):
    """The key has been used with another input. The same call will never be answered in another way."""


async def execute(
    database: Database[Tx], subject: Subject, effect: Callable[[Tx], Awaitable[saga_pb2.Reply]], refuse: Refuse
) -> saga_pb2.Reply:
    """Have the effect once for the key; give its reply, now and whenever the key comes again.

    :raises KeyTaken: the key was used with another input.
    :raises BarrierError: the table cannot be right, or the effect ended the transaction.
    :raises Refused: another attempt may do better; nothing is kept.
    """

    async def run() -> saga_pb2.Reply:
        async with database.transaction() as tx:
            if not await enter(database, tx, ENTER, subject, state="begun"):
                return await _kept(database, tx, subject)
            state, reply = await _had(database, tx, effect, refuse)
            await _settle(database, tx, subject.key, "begun", state, reply)
        return reply

    return await run_again_on_conflict(database, run)


async def compensate(
    database: Database[Tx],
    subject: Subject,
    undo: Callable[[Tx, saga_pb2.Reply], Awaitable[saga_pb2.Reply]],
    *,
    known: bool,
) -> saga_pb2.Reply:
    """Undo the effect of the key once, and see to it that it never happens later.

    `undo` gets the reply of the action. `known` says that the caller knows the action to have succeeded.

    :raises KeyTaken: there is or may be something to undo, and it was done with another input.
    :raises BarrierError: the table cannot be right, or `undo` ended the transaction.
    """

    async def run() -> saga_pb2.Reply:
        async with database.transaction() as tx:
            if await enter(database, tx, ENTER, subject, state="undone"):
                check_never_had(subject.key, known=known)
                return nothing_to_undo()
            rows = await database.fetch(tx, UNDO, key=subject.key)
            if not rows:
                return already_undone(subject, await read(database, tx, subject.key))
            [(kept, digest)] = rows
            check_may_undo(subject, digest)
            async with database.savepoint(tx):
                reply = await undo(tx, parsed(kept))
            await _settle(database, tx, subject.key, "undoing", "undone", reply)
        return reply

    return await run_again_on_conflict(database, run)


async def enter(
    database: Database[Tx], tx: Tx, statement: Statement, subject: Subject, **parameters: Value
) -> Sequence[Sequence[object]]:
    """Make the row of a key; no row comes back if it is there.

    :raises BarrierError: the table has no place for the digest.
    """
    try:
        return await database.fetch(tx, statement, key=subject.key, digest=subject.digest, **parameters)
    except Exception as error:
        if lacks_digest(error):
            raise BarrierError(
                f"the table {TABLE} is of an older version and has no column for digests of inputs: create_table() "
                "adds it; the call may then come again"
            ) from error
        raise


async def read(database: Database[Tx], tx: Tx, key: str) -> Row:
    """The row of a key that was there a moment ago.

    :raises BarrierError: it is not there any more.
    """
    rows = await database.fetch(tx, READ, key=key)
    if not rows:
        raise BarrierError("the verdict of this call was forgotten in the moment in which it was asked for")
    return Row(*cast("tuple[str, bytes | None, bytes | None]", tuple(rows[0])))


def parsed(reply: object) -> saga_pb2.Reply:
    return saga_pb2.Reply.FromString(bytes(cast(bytes, reply)))


def is_same(subject: Subject, digest: object) -> bool:
    """Tell whether a row is of the same input. One that a version without digests has made is taken for that."""
    return digest is None or bytes(cast(bytes, digest)) == subject.digest


def check_may_execute(subject: Subject, digest: object) -> None:
    """:raises KeyTaken: the row is of another input."""
    if not is_same(subject, digest):
        log.error("key %s came again with another input: nothing is done", subject.key)
        raise KeyTaken(EXECUTE_TAKEN)


def check_may_undo(subject: Subject, digest: object) -> None:
    """:raises KeyTaken: the row is of another input."""
    if not is_same(subject, digest):
        log.error("key %s is to be undone with another input than it was done with: nothing is done", subject.key)
        raise KeyTaken(COMPENSATE_TAKEN)


def kept_reply(subject: Subject, row: Row) -> saga_pb2.Reply:
    """What an Execute is answered that finds a verdict.

    :raises KeyTaken: it is that of another input.
    :raises BarrierError: there is none.
    """
    check_may_execute(subject, row.digest)
    match row.state:
        case "succeeded" | "refused":
            return parsed(row.reply)
        case "undone" | "undoing":
            return _undone()
        case _:
            raise _left_open(subject.key, row.state)


def already_undone(subject: Subject, row: Row) -> saga_pb2.Reply:
    """What a Compensate is answered that finds nothing to undo: under this key there is nothing, nor will there be.

    :raises KeyTaken: there may be something, of another input.
    :raises BarrierError: there may be something.
    """
    match row.state:
        case "undone" if row.reply is not None and is_same(subject, row.digest):
            return parsed(row.reply)
        case "undone" | "refused":
            return nothing_to_undo()
        case _:
            check_may_undo(subject, row.digest)
            raise _left_open(subject.key, row.state)


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


async def _kept(database: Database[Tx], tx: Tx, subject: Subject) -> saga_pb2.Reply:
    return kept_reply(subject, await read(database, tx, subject.key))


def _undone() -> saga_pb2.Reply:
    error = payload_pb2.Error(code=UNDONE_CODE, message="This call was undone; it has no effect any more.")
    return saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_ERROR, error=error, stored=True)


def _left_open(key: str, state: str) -> BarrierError:
    return BarrierError(
        f"nobody knows what became of key {key} ({state}): its handler committed the transaction of the barrier, "
        "or kept its intents in another way"
    )
