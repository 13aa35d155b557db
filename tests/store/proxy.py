"""A proxy before a PostgreSQL server that breaks a connection at the worst moment: when the client asks to commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 65_536

COMMITS = (b"COMMIT;", b"COMMIT\0")
"""As one driver says it and as the other does."""


class Proxy:
    """Passes everything on, until it is told to break."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pass_on: bool | None = None
        self._late: asyncio.Event | None = None
        self._flows = asyncio.Event()
        self._flows.set()
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
            for writer in proxy._writers:
                writer.close()
            await asyncio.gather(*proxy._tasks)

    def break_at_commit(self, *, pass_on: bool, late: asyncio.Event | None = None) -> None:
        """Break the next connection that commits, after the server got the request or before.

        With `late` the server gets it once that is set, long after the client has seen its connection break.
        """
        self._pass_on, self._late, self.broke = pass_on, late, False

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
        server_reader, server_writer = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.5432")
        answers = asyncio.create_task(_copy(server_reader, writer))
        try:
            while block := await reader.read(BLOCK_BYTES):
                await self._flows.wait()
                if self._pass_on is not None and any(commit in block for commit in COMMITS):
                    answers.cancel()  # before the request: no answer may slip through
                    await self._break(block if self._pass_on else b"", writer, server_writer)
                    break
                server_writer.write(block)
                await server_writer.drain()
        finally:
            answers.cancel()
            writer.close()
            server_writer.close()

    async def _break(self, request: bytes, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._pass_on, self.broke = None, True
        if self._late is not None:
            client.close()
            await self._late.wait()
        server.write(request)
        await server.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(BLOCK_BYTES):
        writer.write(block)
        await writer.drain()
    writer.close()
