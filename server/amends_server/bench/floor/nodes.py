"""The three processes of the floor: a participant, an orchestrator, and a client that loads them.

Every start and every reply is on disk before it is acted on (SQLite, WAL, synchronous=FULL, group commit). Nothing
else is done: no definitions, no history to look at, no errors, no timeouts. `session` sends what gathers in one message
of a long stream, on every leg; `unary` makes one RPC a start and one a step.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import aiosqlite
import grpc

from amends_server.bench.floor import messages as m
from amends_server.bench.load import answered, drive

STEPS = ("reserve", "charge", "ship")
SUCCEEDED, COMPLETED = 1, 2
PAYLOAD = b"p" * 200


class Gathering:
    """What gathers while somebody is busy with what had gathered before."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._some = asyncio.Event()

    def add(self, item: Any) -> None:
        self._items.append(item)
        self._some.set()

    async def all(self) -> list[Any]:
        await self._some.wait()
        self._some.clear()
        items, self._items = self._items, []
        return items


class Sessions:
    """Calls in batches over one stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stream: Any = channel.stream_stream(m.CALLS, m.Calls.SerializeToString, m.Replies.FromString)()
        self._open: dict[int, Callable[[Any], None]] = {}
        self._out = Gathering()
        self._last = 0
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    def call(self, saga_id: str, step: str, payload: bytes, done: Callable[[Any], None]) -> None:
        self._last += 1
        self._open[self._last] = done
        self._out.add(m.Call(id=self._last, saga_id=saga_id, step=step, key=saga_id + step, payload=payload))

    async def _write(self) -> None:
        while True:
            await self._stream.write(m.Calls(items=await self._out.all()))

    async def _read(self) -> None:
        while True:
            for reply in (await self._stream.read()).items:
                self._open.pop(reply.id)(reply)


class Unary:
    """One RPC a call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._execute = channel.unary_unary(m.EXECUTE, m.Call.SerializeToString, m.Reply.FromString)
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, saga_id: str, step: str, payload: bytes, done: Callable[[Any], None]) -> None:
        call = m.Call(saga_id=saga_id, step=step, key=saga_id + step, payload=payload)
        task = asyncio.create_task(self._call(call, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, call: Any, done: Callable[[Any], None]) -> None:
        done(await answered(self._execute, call))


class Journal:
    """Makes what gathers durable, then calls back."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._waiting = Gathering()
        self.born: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.ended: list[tuple[Any, ...]] = []
        self._task = asyncio.create_task(self._commit_all())

    def commit(self, done: Callable[[], None]) -> None:
        self._waiting.add(done)

    async def _commit_all(self) -> None:
        while True:
            waiting = await self._waiting.all()
            born, events, ended = self.born, self.events, self.ended
            self.born, self.events, self.ended = [], [], []
            await self._db.execute("begin immediate")
            if born:
                await self._db.executemany("insert into saga values (?, ?, ?, ?)", born)
            if events:
                await self._db.executemany("insert into event (saga, sequence, kind, body) values (?, ?, ?, ?)", events)
            if ended:
                await self._db.executemany("update saga set status = ? where saga = ?", ended)
            await self._db.execute("commit")
            for done in waiting:
                done()


async def open_journal(path: str) -> Journal:
    db = await aiosqlite.connect(path, isolation_level=None)
    await db.execute("pragma journal_mode = wal")
    await db.execute("pragma synchronous = full")
    await db.execute("create table saga (saga integer primary key, saga_id text unique, status integer, input blob)")
    await db.execute("create table event (event integer primary key, saga int, sequence int, kind int, body blob)")
    return Journal(db)


class Saga:
    """One saga on its way through the steps."""

    __slots__ = ("_at", "_done", "_input", "_journal", "_link", "_number", "_saga_id")

    def __init__(self, number: int, start: Any, journal: Journal, link: Sessions | Unary, done: Any) -> None:
        self._number, self._saga_id, self._input = number, start.saga_id, start.payload
        self._journal, self._link, self._done = journal, link, done
        self._at = 0
        journal.born.append((number, start.saga_id, SUCCEEDED, start.payload))
        journal.commit(self._go_on)

    def _go_on(self) -> None:
        if self._at == len(STEPS):
            self._done(m.End(saga_id=self._saga_id, status=COMPLETED))
        else:
            self._link.call(self._saga_id, STEPS[self._at], self._input, self._replied)

    def _replied(self, reply: Any) -> None:
        self._at += 1
        self._journal.events.append((self._number, self._at, reply.status, reply.payload))
        if self._at == len(STEPS):
            self._journal.ended.append((COMPLETED, self._number))
        self._journal.commit(self._go_on)


class Orchestrator:
    """Takes starts, alone or in batches, and answers when the sagas have ended."""

    def __init__(self, journal: Journal, link: Sessions | Unary) -> None:
        self._journal, self._link = journal, link
        self._count = 0

    def begin(self, start: Any, done: Callable[[Any], None]) -> None:
        self._count += 1
        Saga(self._count, start, self._journal, self._link, done)

    async def run(self, start: Any, context: Any) -> Any:
        end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.begin(start, end.set_result)
        return await end

    async def runs(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        out = Gathering()
        reader = asyncio.create_task(self._read(requests, out))
        try:
            while True:
                yield m.Ends(items=await out.all())
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[Any], out: Gathering) -> None:
        async for batch in requests:
            for start in batch.items:
                self.begin(start, out.add)


async def execute(call: Any, context: Any) -> Any:
    return m.Reply(id=call.id, status=SUCCEEDED, payload=call.payload)


async def calls(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for batch in requests:
        yield m.Replies(items=[await execute(call, context) for call in batch.items])


async def serve(service: str, unary: dict[str, Any], streams: dict[str, Any]) -> None:
    """Serve methods, given as name to (handler, request class), at a free port."""
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(handler, kind.FromString, lambda message: message.SerializeToString())
        for name, (handler, kind) in unary.items()
    }
    handlers |= {
        name: grpc.stream_stream_rpc_method_handler(
            handler, kind.FromString, lambda message: message.SerializeToString()
        )
        for name, (handler, kind) in streams.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(f"bench.floor.{service}", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def participant() -> None:
    await serve("Participant", {"Execute": (execute, m.Call)}, {"Calls": (calls, m.Calls)})


async def orchestrator(link: str, path: str, address: str) -> None:
    channel = grpc.aio.insecure_channel(address)
    node = Orchestrator(await open_journal(path), Sessions(channel) if link == "session" else Unary(channel))
    await serve("Orchestrator", {"Run": (node.run, m.Start)}, {"Runs": (node.runs, m.Starts)})


async def load(link: str, address: str, concurrency: str, seconds: str) -> None:
    channel = grpc.aio.insecure_channel(address)
    one = run_in_session(channel) if link == "session" else run_unary(channel)
    print(json.dumps(await drive(one, int(concurrency), float(seconds))), flush=True)


def run_unary(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    run = channel.unary_unary(m.RUN, m.Start.SerializeToString, m.End.FromString)

    async def one() -> None:
        await answered(run, m.Start(saga_id=uuid.uuid4().hex, payload=PAYLOAD))

    return one


def run_in_session(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    stream: Any = channel.stream_stream(m.RUNS, m.Starts.SerializeToString, m.Ends.FromString)()
    waiting: dict[str, asyncio.Future[None]] = {}
    out = Gathering()

    async def write() -> None:
        while True:
            await stream.write(m.Starts(items=await out.all()))

    async def read() -> None:
        while True:
            for end in (await stream.read()).items:
                waiting.pop(end.saga_id).set_result(None)

    tasks = [asyncio.create_task(write()), asyncio.create_task(read())]

    async def one() -> None:
        assert not any(task.done() for task in tasks), "the stream broke"
        start = m.Start(saga_id=uuid.uuid4().hex, payload=PAYLOAD)
        end = waiting[start.saga_id] = asyncio.get_running_loop().create_future()
        out.add(start)
        await end

    return one


if __name__ == "__main__":
    ROLES: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "participant": participant,
        "orchestrator": orchestrator,
        "load": load,
    }
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
