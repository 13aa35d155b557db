"""A participant behind a barrier, its calls as an orchestrator makes them, and the effects that it really had."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import psycopg
from sqlalchemy import text

from amends import Call, Participant, Refused
from amends.payloads import encode
from amends.v1 import participant_pb2, payload_pb2, saga_pb2
from tests.barrier.kinds import EFFECTS, Write, done

SUCCESS = saga_pb2.REPLY_STATUS_SUCCESS
ERROR = saga_pb2.REPLY_STATUS_ERROR
SYSTEM_ERROR = saga_pb2.REPLY_STATUS_SYSTEM_ERROR

_keys = count(1)


@dataclass
class Do:
    """What is asked for. What a handler does after the effect is in a label, for the input of a key is always equal."""

    amount: int = 1


@dataclass
class Done:
    number: int


INPUT = encode(Do())


class Status(Exception):
    """The gRPC status that a call ended with."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class Aborting:
    """Stands for the context of a call."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Status(code, details)


ABORTED: Any = Aborting()


@dataclass
class World:
    """One participant, in a place. Keys are new in each world, so that many can share a database."""

    barrier: Any
    write: Write
    place: str
    handled: list[str] = field(default_factory=list[str])
    prefix: str = field(default_factory=lambda: f"k{next(_keys)}")

    def __post_init__(self) -> None:
        self.participant = Participant("p")
        (self._asynchronous if self.barrier.is_async else self._plain)()
        self.stub = self.participant.servicer()

    @property
    def postgres(self) -> bool:
        return self.place.startswith("postgresql:")

    async def prepare(self) -> None:
        await done(self.barrier.create_table())
        self.sql(EFFECTS.format(id="id bigserial" if self.postgres else "id INTEGER PRIMARY KEY"))

    def _plain(self) -> None:
        @self.participant.action(barrier=self.barrier)
        def act(request: Do, call: Call, tx: Any) -> Done:
            self.write(tx, call.key, "do")
            self.end(call, tx)
            return Done(len(self.handled))

        @act.compensation
        def undo(request: Do, done: Done, call: Call, tx: Any) -> None:
            self.write(tx, call.execute_key, f"undo {done.number}")
            self.end(call, tx)

    def _asynchronous(self) -> None:
        @self.participant.action(barrier=self.barrier)
        async def act(request: Do, call: Call, tx: Any) -> Done:
            await self.write(tx, call.key, "do")
            await done(self.end(call, tx))
            return Done(len(self.handled))

        @act.compensation
        async def undo(request: Do, done_: Done, call: Call, tx: Any) -> None:
            await self.write(tx, call.execute_key, f"undo {done_.number}")
            await done(self.end(call, tx))

    def end(self, call: Call, tx: Any) -> Any:
        """The rest of a handler: nothing more, or refuse, break, …; `SQL, then …` runs SQL before that.

        A result that is awaitable is to be awaited.
        """
        self.handled.append(call.key)
        call.relate("carrier", f"TR-{len(self.handled)}")
        sql, _, then = call.labels["then"].rpartition(", then ")
        if not sql:
            return self.behave(then)
        if self.barrier.is_async:
            return self._run_and_behave(tx, sql, then)
        self.run(tx, sql)
        return self.behave(then)

    async def _run_and_behave(self, tx: Any, sql: str, then: str) -> None:
        await self.run(tx, sql)
        self.behave(then)

    def run(self, tx: Any, sql: str) -> Any:
        """Run SQL by the driver of the transaction."""
        return tx.execute(text(sql) if "sqlalchemy" in type(tx).__module__ else sql)

    def behave(self, then: str) -> None:
        """End as a handler may."""
        match then:
            case "refuse":
                raise Refused("NO", "not that", data={"why": [1, 2]})
            case "refuse for now":
                raise Refused("BUSY", "come again", again=True)
            case "break":
                raise OSError("the disk")

    async def execute(
        self, key: str, then: str = "", attempt: int = 1, input: payload_pb2.Payload = INPUT
    ) -> saga_pb2.Reply:
        call = self._call(self.prefix + key, then, attempt)
        request = participant_pb2.ExecuteRequest(call=call, action="act", input=input)
        return (await self.stub.Execute(request, ABORTED)).reply

    async def compensate(
        self, key: str, then: str = "", output: object = None, input: payload_pb2.Payload = INPUT
    ) -> saga_pb2.Reply:
        call = self._call(f"{self.prefix}{key}/undo", then)
        request = participant_pb2.CompensateRequest(call=call, action="act", execute_key=self.prefix + key, input=input)
        if output is not None:
            request.output.CopyFrom(encode(output))
        return (await self.stub.Compensate(request, ABORTED)).reply

    def _call(self, key: str, then: str, attempt: int = 1) -> participant_pb2.Call:
        return participant_pb2.Call(saga_id="s", step="act", key=key, attempt=attempt, labels={"then": then})

    def effects(self, key: str) -> list[str]:
        rows = self.sql(f"SELECT kind FROM effect WHERE key = '{self.prefix}{key}' ORDER BY id")
        return [kind for (kind,) in rows]

    def state(self, key: str) -> str | None:
        rows = self.sql(f"SELECT state FROM amends_barrier WHERE key = '{self.prefix}{key}'")
        return rows[0][0] if rows else None

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL by a connection of its own, committed."""
        if self.postgres:
            with psycopg.connect(self.place, autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.place, timeout=20)) as connection, connection:
            return connection.execute(statement).fetchall()


async def together(*calls: Any) -> list[Any]:
    """The replies of calls that are made at once, and the statuses of those that ended with one."""
    return [_status(each) for each in await asyncio.gather(*calls, return_exceptions=True)]


def _status(ended: Any) -> Any:
    if isinstance(ended, BaseException) and not isinstance(ended, Status):
        raise ended
    return ended
