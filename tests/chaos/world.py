"""All that a run consists of: orchestrators, banks with databases of their own, clients, and proxies between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.database import Cluster, cluster
from tests.chaos.disk import CannotMount, Disk
from tests.chaos.nemesis import Story, Victims
from tests.chaos.node import Node
from tests.chaos.plan import OF_COMMITS, OF_CONNECTIONS, OF_PROCESSES, Kind, Target
from tests.chaos.proxy import Proxy
from tests.chaos.transfers import BANKS

CLIENTS = ("ann", "bob")
REPLICAS = ("first", "second", "third")
LEASE_S = 2.0
DRAIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What runs. `databases` are the banks' files, `diaries` the clients' ones."""

    servers: list[Node]
    banks: list[Node]
    clients: list[Node]
    databases: dict[str, Path]
    diaries: dict[str, Path]
    victims: Victims
    targets: Sequence[Target]
    long_s: float

    @property
    def nodes(self) -> list[Node]:
        return [*self.servers, *self.banks, *self.clients]

    @property
    def addresses(self) -> list[str]:
        """Where the orchestrators are reached, whatever befalls them."""
        return [server.proxy.address for server in self.servers]

    async def heal(self) -> list[str]:
        """Undo all that was done, and return who had ended by itself."""
        fallen = [node.name for node in self.nodes if node.failed]
        for proxy in self.victims.proxies.values():
            proxy.go_on()
        for node in self.nodes:
            node.go_on()
            await node.start()
        return fallen


@asynccontextmanager
async def world(folder: Path, seed: int, store: str, story: Story, *, mounts: bool) -> AsyncIterator[World]:
    """Build a world and start it; at the end of the block nothing is left of it but its files."""
    async with AsyncExitStack() as stack:
        builder = _Builder(folder, stack, story, mounts)
        banks = [await builder.bank(name) for name in BANKS]
        participants = {bank.name: bank.proxy.address for bank in banks}
        if store == "postgresql":
            db = stack.enter_context(cluster())
            db.sql("create schema chaos")
            servers = [await builder.replica(name, db, participants) for name in REPLICAS]
        else:
            db = None
            servers = [await builder.server(participants)]
        for node in (*banks, *servers):
            await node.start()
        clients = [await builder.client(name, seed, [server.proxy.address for server in servers]) for name in CLIENTS]
        yield World(
            servers=servers,
            banks=banks,
            clients=clients,
            databases=builder.databases,
            diaries=builder.diaries,
            victims=Victims(builder.nodes, builder.proxies, builder.disks, db),
            targets=[*builder.targets, *([DATABASE] if db is not None else [])],
            long_s=LEASE_S if db is not None else 0.0,
        )


DATABASE = Target("database", (Kind.CRASH, Kind.TERMINATE, Kind.FAIL_OVER), 2)


class _Builder:
    """Makes the parts of a world, and has each taken away at its end."""

    def __init__(self, folder: Path, stack: AsyncExitStack, story: Story, mounts: bool) -> None:
        self._folder = folder
        self._stack = stack
        self._story = story
        self._mounts = mounts
        self.nodes: dict[str, Node] = {}
        self.proxies: dict[str, Proxy] = {}
        self.disks: dict[str, Disk] = {}
        self.databases: dict[str, Path] = {}
        self.diaries: dict[str, Path] = {}
        self.targets: list[Target] = []

    async def bank(self, name: str) -> Node:
        files = self._files(name)
        self.databases[name] = files / "bank.db"
        node = Node(name, self._folder, ["-m", "tests.chaos.bank", name, str(self.databases[name])])
        return await self._add(node, [*OF_PROCESSES, *OF_CONNECTIONS, *self._of_disk(name)], 1)

    async def server(self, participants: dict[str, str]) -> Node:
        """The orchestrator on an SQLite file."""
        store = f"sqlite:///{self._files('server') / 'amends.db'}"
        node = Node("server", self._folder, SERVE, _settings(store, participants))
        return await self._add(node, [*OF_PROCESSES * 2, *OF_CONNECTIONS, *self._of_disk("server")], 3)

    async def replica(self, name: str, db: Cluster, participants: dict[str, str]) -> Node:
        """An orchestrator that shares the database with others, each by a way of its own."""
        way = await self._proxy(f"{name}'s database", [*OF_CONNECTIONS, *OF_COMMITS * 2], 1)
        way.target = db.socket
        store = f"postgresql://amends@{way.address}/postgres?sslmode=disable&search_path=chaos"
        node = Node(name, self._folder, SERVE)
        await self._add(node, [*OF_PROCESSES, *OF_CONNECTIONS], 1)
        node.env.update(_settings(store, participants), AMENDS_ADVERTISE=node.proxy.address)
        return node

    async def client(self, name: str, seed: int, addresses: Sequence[str]) -> Node:
        self.diaries[name] = self._folder / f"{name}.diary"
        command = ["-m", "tests.chaos.client", name, str(seed), str(self.diaries[name]), *addresses]
        node = await self._add(Node(name, self._folder, command), [Kind.KILL, Kind.PAUSE], 1)
        await node.start()
        return node

    async def _add(self, node: Node, kinds: Sequence[Kind], weight: int) -> Node:
        node.proxy = await self._proxy(node.name, kinds, weight)
        self.nodes[node.name] = node
        self._stack.push_async_callback(node.kill)
        return node

    async def _proxy(self, name: str, kinds: Sequence[Kind], weight: int) -> Proxy:
        proxy = self.proxies[name] = Proxy()
        await proxy.open()
        self._stack.push_async_callback(proxy.close)
        self.targets.append(Target(name, kinds, weight))
        return proxy

    def _files(self, name: str) -> Path:
        """Return a folder for somebody's files, on a disk of its own if that can be had."""
        folder = self._folder / name
        folder.mkdir()
        if self._mounts:
            try:
                disk = self.disks[name] = Disk(folder)
            except CannotMount as reason:
                self._mounts = False
                self._story.tell(f"no disk is filled: {reason}")
            else:
                self._stack.callback(disk.close)
        return folder

    def _of_disk(self, name: str) -> list[Kind]:
        return [Kind.LIMIT, Kind.FULL] if name in self.disks else [Kind.LIMIT]


SERVE = ("-m", "amends_server.cli", "serve")


def _settings(store: str, participants: dict[str, str]) -> dict[str, str]:
    return {
        "AMENDS_STORE": store,
        "AMENDS_LISTEN": "127.0.0.1:0",
        "AMENDS_LEASE_S": str(LEASE_S),
        "AMENDS_DRAIN_S": str(DRAIN_S),
        "AMENDS_PARTICIPANTS": json.dumps(participants),
        "AMENDS_LOG_FORMAT": "json",
    }
