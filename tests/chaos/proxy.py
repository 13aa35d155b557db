"""A TCP proxy that breaks connections: cuts them, lets them hang half-open, refuses new ones, breaks off a COMMIT."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field

BLOCK_BYTES = 65_536

RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: whoever is at the other end gets a reset, and not an orderly end."""

COMMIT = b"COMMIT;"

Target = tuple[str, int] | str
"""Where it leads to: a host and port, or the path of a socket."""


@dataclass(frozen=True, slots=True)
class Trap:
    """What happens to the next connection that commits: it is cut, and the request is lost, or gets there late."""

    passes_on: bool
    after_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Pair:
    """A connection and its continuation. `up` is towards the target."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def cut(self) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


class Proxy:
    """Listens at an address that lasts; `target` may change, None while there is nobody."""

    def __init__(self) -> None:
        self.target: Target | None = None
        self.address = ""
        self.refuses = False
        self.trap: Trap | None = None
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()
        self._down.set()
        self._pairs: set[_Pair] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        """Cut everything, and listen no more."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._late, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections."""
        for pair in list(self._pairs):
            pair.cut()

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing through, in one direction or both; connections stay, and new ones are taken."""
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    def go_on(self) -> None:
        """Let through what has gathered, and all that follows."""
        self.refuses = False
        self.trap = None
        self._up.set()
        self._down.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, pair = asyncio.current_task(), _Pair(_resetting(writer))
        assert task is not None
        self._pairs.add(pair)
        self._serving.add(task)
        try:
            if not self.refuses:
                await self._join(pair, reader)
        except (OSError, asyncio.CancelledError):  # the end of a connection, however it comes, is what this is for
            return
        finally:
            self._pairs.discard(pair)
            self._serving.discard(task)
            pair.cut()

    async def _join(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        server_reader, server = await self._connect()
        pair.server = _resetting(server)
        pair.tasks = [
            asyncio.create_task(self._pass_up(reader, pair)),
            asyncio.create_task(_pass(server_reader, pair.client, self._down)),
        ]
        await asyncio.wait(pair.tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        match self.target:
            case None:
                raise ConnectionRefusedError
            case str(path):
                return await asyncio.open_unix_connection(path)
            case (host, port):
                return await asyncio.open_connection(host, port)

    async def _pass_up(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        assert pair.server is not None
        with suppress(OSError):
            while block := await reader.read(BLOCK_BYTES):
                await self._up.wait()
                if self.trap is not None and COMMIT in block:
                    return self._spring(self.trap, pair, block)
                pair.server.write(block)
                await pair.server.drain()
            await self._up.wait()

    def _spring(self, trap: Trap, pair: _Pair, block: bytes) -> None:
        """Cut the client off; the server may get the request all the same, sooner or later, and nobody its answer."""
        self.trap = None
        server, pair.server = pair.server, None
        assert server is not None
        late = asyncio.create_task(_deliver(server, block if trap.passes_on else b"", trap.after_s))
        self._late.add(late)
        late.add_done_callback(self._late.discard)


async def _deliver(server: asyncio.StreamWriter, block: bytes, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
        with suppress(OSError):
            server.write(block)
            await server.drain()
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            await gate.wait()
            writer.write(block)
            await writer.drain()
        await gate.wait()


def _resetting(writer: asyncio.StreamWriter) -> asyncio.StreamWriter:
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    return writer
