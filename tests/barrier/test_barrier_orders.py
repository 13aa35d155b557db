"""Two calls of one key, interleaved in every order of their statements: I13 to I18 hold in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiosqlite
import asyncpg
import pytest

from amends import barrier
from amends.barrier import AsyncBarrier
from amends.barrier._asyncpg import Asyncpg
from amends.barrier._sqlite import Aiosqlite
from amends.v1 import saga_pb2
from tests.barrier.conftest import LEVELS
from tests.barrier.kinds import POSTGRES, SQLITE
from tests.barrier.steps import Actor, Stepwise, every_order, run
from tests.barrier.world import ERROR, SUCCESS, World

PAIRS = {
    "execute-execute": ("execute", "execute"),
    "execute-compensate": ("execute", "compensate"),
    "compensate-compensate": ("compensate", "compensate"),
    "done-compensate-compensate": ("done", "compensate", "compensate"),
    "done-execute-compensate": ("done", "execute", "compensate"),
    "refusal-compensate": ("refusal", "compensate"),
    "refusal-execute": ("refusal", "execute"),
}


class Place:
    """A database in which actors have a connection each, and who waits in it for whom is known."""

    def __init__(self, connections: dict[Actor, Any], monitor: Any) -> None:
        self.connections = connections
        self.monitor = monitor
        self.stepwise: dict[Actor, Stepwise] = {}

    async def blocked(self, actor: Actor) -> bool:
        if self.monitor is None:
            others = [each for other, each in self.stepwise.items() if other is not actor]
            return actor.last == "before begin" and any(each.inside for each in others)
        pid = self.connections[actor].get_server_pid()
        waits = await self.monitor.fetchval("SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted", pid)
        return bool(waits)

    def database(self, actor: Actor) -> Stepwise:
        connection = self.connections[actor]

        @asynccontextmanager
        async def lent() -> AsyncIterator[Any]:
            yield connection

        driver: Any = Asyncpg(lent) if self.monitor is not None else Aiosqlite(lent)
        self.stepwise[actor] = Stepwise(driver, actor.pause)
        return self.stepwise[actor]


@dataclass
class Bench:
    """Where the orders are tried: connections that stay, keys that are new each time."""

    place: str
    write: Any
    connections: list[Any]
    monitor: Any
    plain: World

    async def try_all(self, pair: tuple[str, ...]) -> tuple[int, Counter[str]]:
        seen: Counter[str] = Counter()

        async def one(choices: list[int]) -> list[int]:
            before = [each for each in pair if each == "done"]
            names = [each for each in pair if each != "done"]
            actors = [Actor(f"{name} {number}") for number, name in enumerate(names)]
            place = Place(dict(zip(actors, self.connections, strict=False)), self.monitor)
            worlds = [
                World(AsyncBarrier(place.database(actor)), self.write, self.place, prefix=self.plain.prefix)
                for actor in actors
            ]
            key = f"-{next(_numbers)}"
            for _ in before:
                assert (await self.plain.execute(key)).status == SUCCESS
            calls = [called(world, name, key) for world, name in zip(worlds, names, strict=True)]
            widths = await run(actors, calls, place.blocked, choices)
            seen["again"] += sum(each.begun > 1 for each in place.stepwise.values())
            replies = [actor.task.result() for actor in actors if actor.task is not None]
            await self.check(key, names, replies, seen, [*choices])
            return widths

        return await every_order(one), seen

    async def check(
        self, key: str, names: list[str], replies: list[saga_pb2.Reply], seen: Counter[str], choices: list[int]
    ) -> None:
        story = f"choices {choices}: {list(zip(names, replies, strict=True))}"
        effects = await self.effects(key)
        undone = "compensate" in names
        assert effects in ([], ["do", "undo"]) if undone else effects in ([], ["do"]), story
        acts = [reply for name, reply in zip(names, replies, strict=True) if name != "compensate"]
        assert {reply.status for reply in acts} <= {SUCCESS, ERROR}, story
        assert all(reply.stored for reply in acts), story
        assert all(r.status == SUCCESS for n, r in zip(names, replies, strict=True) if n == "compensate"), story
        if not undone:
            assert len({reply.SerializeToString(deterministic=True) for reply in acts}) == 1, story
        late = await self.plain.execute(key, attempt=9)
        assert late.status == ERROR if undone else late == acts[0], story
        assert await self.effects(key) == effects, story
        seen.update(reply.error.code or "SUCCESS" for reply in acts)
        seen["".join(effects) or "nothing"] += 1

    async def effects(self, key: str) -> list[str]:
        if self.monitor is None:
            return [each.split()[0] for each in self.plain.effects(key)]
        rows = await self.monitor.fetch("SELECT kind FROM effect WHERE key = $1 ORDER BY id", self.plain.prefix + key)
        return [row["kind"].split()[0] for row in rows]


RUNS_MIN = 5  # in SQLite the second one can only wait
_numbers = count(1)


def called(world: World, name: str, key: str) -> Awaitable[saga_pb2.Reply]:
    match name:
        case "compensate":
            return world.compensate(key)
        case "refusal":
            return world.execute(key, "refuse")
        case _:
            return world.execute(key)


@pytest.fixture(params=["sqlite", *LEVELS])
async def bench(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            place, kind = str(tmp_path / "participant.db"), SQLITE[0]
            kind = next(each for each in SQLITE if each.name == "aiosqlite")
            connect: Callable[[], Any] = lambda: aiosqlite.connect(place, timeout=20)  # noqa: E731
        else:
            place = request.getfixturevalue("postgres_urls")[request.param]
            kind = next(each for each in POSTGRES if each.name == "asyncpg")
            connect = lambda: asyncpg.connect(place)  # noqa: E731
        connections = [await connect() for _ in range(2 if request.param == "sqlite" else 3)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        monitor = connections[2] if connections[2:] else None
        made = barrier.asyncpg(lambda: nullcontext(monitor)) if monitor else kind.make(place, stack)
        plain = World(made, kind.write, place)
        await plain.prepare()
        yield Bench(place, kind.write, connections, monitor, plain)


@pytest.mark.parametrize("pair", PAIRS)
async def test_i18_two_calls_of_a_key_in_every_order(bench: Bench, pair: str) -> None:
    runs, seen = await bench.try_all(PAIRS[pair])
    print(bench.place, pair, runs, seen)
    assert runs >= RUNS_MIN
    if "serializable" in bench.place and pair != "compensate-compensate":
        assert seen["again"] > 0, "transactions that could not be serialized ran again"
    match pair:
        case "execute-compensate":
            assert seen["UNDONE"] > 0
            assert seen["nothing"] > 0
            assert seen["doundo"] > 0
        case "done-execute-compensate":
            assert seen["UNDONE"] > 0
            assert seen["SUCCESS"] > 0
        case "refusal-compensate":
            assert seen["NO"] > 0
            assert seen["UNDONE"] > 0
