"""A proxy before a PostgreSQL server that breaks a connection at the worst moment, or lets it hang there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 65_536

COMMITS = (b"COMMIT;", b"COMMIT\0")
"""As one driver says it and as the other does."""

WAITS = b"HQS"
"""The types of messages after which a client waits for the server: Flush, Query, Sync."""

BIND = b"B"
"""A message after which a client never waits, and can be stopped all the same when what it sends is large."""


class Messages:
    """The messages in a stream of a client's, of which the first one has no type.

    `types` has those of all others, and `queries` the texts of those of type Q, each with a zero at its end.
    """

    def __init__(self) -> None:
        self.types = bytearray()
        self.queries: list[bytes] = []
        self._message = bytearray()
        self._left = 4

    def ends(self, block: bytes, types: bytes) -> Iterator[int]:
        """Return the places behind each message of these types that ends in this block, the next one of the stream."""
        place = 0
        while place < len(block):
            if self._left == 0:  # a message begins
                self.types.append(block[place])
                self._left, place = 4, place + 1
                self._message.clear()
                continue
            taken = block[place : place + self._left]
            place += len(taken)
            self._left -= len(taken)
            length = len(self._message)
            self._message += taken
            if length < 4 and len(self._message) == 4:
                self._left = int.from_bytes(self._message) - 4
            if self._left == 0 and self.types:
                if self.types[-1] == ord("Q"):
                    self.queries.append(bytes(self._message[4:]))
                if self.types[-1] in types:
                    yield place


class Proxy:
    """Passes everything on, until it is told to break."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pass_on: bool | None = None
        self._late: asyncio.Event | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._more = 0
        self._left: int | None = None
        self._types = WAITS
        self.sent = 0
        self.streams: list[Messages] = []
        self.stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""
        self.broke = False

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Proxy]:
        """Listen for connections to the server at that URL, which names a folder with a socket."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        proxy = cls(query.pop("host"))
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        more = "&".join(f"{name}={value}" for name, value in query.items())
        proxy.url = f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable&{more}"
        try:
            yield proxy
        finally:
            server.close()
            proxy.go_on()
            for writer in proxy._writers:
                writer.close()
            await asyncio.gather(*proxy._tasks)

    def break_at_commit(self, *, pass_on: bool, late: asyncio.Event | None = None) -> None:
        """Break the next connection that commits, after the server got the request or before.

        With `late` the server gets it once that is set, long after the client has seen its connection break.
        """
        self._pass_on, self._late, self.broke = pass_on, late, False

    def count(self, types: bytes = WAITS) -> None:
        """Count in `sent` the messages of these types that are sent from now on."""
        self._types, self.sent = types, 0

    def stop_after(self, messages: int, more: int, types: bytes = WAITS) -> None:
        """Hang once so many messages of these types were sent from now on, and so many bytes more.

        That is what the server sees of a process that is stopped there. `stopped` is set then. With `go_on` the
        connection that sent them breaks.
        """
        self._left, self._more, self._types = messages, more, types

    def hang(self) -> None:
        """Pass nothing on, and take connections all the same, as a machine does that has stopped."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass on what was held back, and what comes."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self._writers.append(writer)
        try:
            with suppress(ConnectionError):  # of either side: it ends for both, as without a proxy
                await self._pass_all_on(reader, writer)
        finally:
            writer.close()

    async def _pass_all_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.5432")
        answers = asyncio.create_task(_copy(server_reader, writer))
        messages = Messages()
        self.streams.append(messages)
        try:
            while block := await reader.read(BLOCK_BYTES):
                await self._flows.wait()
                block = self._up_to_stop(messages, block)
                if self._pass_on is not None and any(commit in block for commit in COMMITS):
                    answers.cancel()  # before the request: no answer may slip through
                    await self._break(block if self._pass_on else b"", writer, server_writer)
                    break
                server_writer.write(block)
                await server_writer.drain()
                if self._left == 0 == self._more:
                    self._left = None
                    self.hang()
                    self.stopped.set()
                    await self._flows.wait()
                    break
        finally:
            answers.cancel()
            server_writer.close()

    def _up_to_stop(self, messages: Messages, block: bytes) -> bytes:
        end = 0
        for place in messages.ends(block, self._types):
            self.sent += 1
            if self._left:
                self._left -= 1
                end = place
        if self._left == 0:
            block = block[: end + self._more]
            self._more -= len(block) - end
        return block

    async def _break(self, request: bytes, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._pass_on, self.broke = None, True
        if self._late is not None:
            client.close()
            await self._late.wait()
        server.write(request)
        await server.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    writer.close()
