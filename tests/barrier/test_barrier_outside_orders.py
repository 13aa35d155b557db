"""Two calls of a key with an effect outside the database, in every order of their transactions and effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiosqlite
import asyncpg
import pytest

from amends import Call, Participant
from amends.barrier import AsyncBarrier, Intent
from amends.v1 import saga_pb2
from tests.barrier.conftest import LEVELS
from tests.barrier.steps import Actor, Stepwise, every_order, run
from tests.barrier.test_barrier_orders import Place
from tests.barrier.test_barrier_outside import Shop
from tests.barrier.world import ERROR, SUCCESS, SYSTEM_ERROR

PAIRS = [("execute", "execute"), ("execute", "compensate"), ("compensate", "compensate"), ("done", "compensate")]
STOPS = ("before begin", "before commit", "before effect", "after effect")
"""Before each update, too, there are two thousand orders, and nothing else to be seen: a transaction has one change."""
RUNS_MIN = 4
HOLD_S = 600.0

_keys = count(1)


@dataclass
class Provider:
    """A service elsewhere. Each call stops before its effect and after it, while others go on."""

    paid: Counter[str] = field(default_factory=Counter[str])
    calls: int = 0

    def participant(self, database: Stepwise) -> Participant:
        payment, barrier = Participant("payment"), AsyncBarrier[Any](database).outside(hold_s=HOLD_S)

        @payment.action(barrier=barrier)
        async def charge(request: int, call: Call, intent: Intent) -> str:
            await database.pause("before effect")
            assert not intent.repeated, "nothing has failed, so nobody is in doubt"
            self.paid[call.key] += 1
            self.calls += 1
            await database.pause("after effect")
            return f"P-{self.calls}"

        @charge.compensation
        async def refund(request: int, done: str | None, call: Call, intent: Intent) -> None:
            await database.pause("before effect")
            assert done is not None, "nothing has failed, so it is known what was done"
            self.paid[call.execute_key] -= 1
            await database.pause("after effect")

        return payment


class Bench:
    """Where the orders are tried."""

    def __init__(self, connections: list[Any], monitor: Any) -> None:
        self._connections = connections
        self._monitor = monitor
        self.seen: Counter[str] = Counter()

    async def try_all(self, pair: tuple[str, str]) -> int:
        async def one(choices: list[int]) -> list[int]:
            provider, key = Provider(), f"outside-{next(_keys)}"
            actors = [Actor(f"{name} {number}") for number, name in enumerate(pair)]
            place = Place(dict(zip(actors, self._connections, strict=True)), self._monitor)
            shops = [self._shop(place, actor, provider, key) for actor in actors]
            names = list(pair)
            if names[0] == "done":
                names[0] = "compensate"
                assert (await self._freely(place, actors[0], shops[0].execute)).status == SUCCESS
            calls = [
                shop.execute() if name == "execute" else shop.compensate()
                for name, shop in zip(names, shops, strict=True)
            ]
            widths = await run(actors, calls, place.blocked, choices)
            replies = [actor.task.result() for actor in actors if actor.task is not None]
            story = f"choices {choices}: {list(zip(names, replies, strict=True))}"
            self._check(names, replies, provider, key, story)
            await self._check_end(place, actors[0], shops[0], names, replies, provider, story)
            return widths

        return await every_order(one)

    def _shop(self, place: Place, actor: Actor, provider: Provider, key: str) -> Shop:
        database = place.database(actor)

        async def pause(label: str) -> None:
            actor.last = label
            if label in STOPS and actor.task is not None:
                await actor.pause(label)

        database.pause = pause
        return Shop(provider, provider.participant(database), None, key)  # type: ignore[arg-type]

    async def _freely(
        self, place: Place, actor: Actor, call: Callable[[], Awaitable[saga_pb2.Reply]]
    ) -> saga_pb2.Reply:
        """Make a call that stops nowhere."""
        task, actor.task = actor.task, None
        try:
            return await call()
        finally:
            actor.task = task

    def _check(self, names: list[str], replies: list[saga_pb2.Reply], provider: Provider, key: str, story: str) -> None:
        for name, reply in zip(names, replies, strict=True):
            if reply.status == SYSTEM_ERROR:
                assert reply.error.code == "BARRIER_ERROR", story
                assert "another attempt is at key" in reply.error.message, story
            elif name == "compensate":
                assert (reply.status, provider.paid[key + "a"]) == (SUCCESS, 0), story
            else:
                assert reply.status == SUCCESS or reply.error.code == "UNDONE", story
            self.seen[f"{name} {reply.error.code or 'SUCCESS'}"] += 1
        assert provider.calls <= 1, f"never asked for twice: {story}"

    async def _check_end(
        self,
        place: Place,
        actor: Actor,
        shop: Shop,
        names: list[str],
        replies: list[saga_pb2.Reply],
        provider: Provider,
        story: str,
    ) -> None:
        """Ask again, as an orchestrator does: now nobody is in the way."""
        undone = "compensate" in names
        if undone:
            assert (await self._freely(place, actor, shop.compensate)).status == SUCCESS, story
        last = await self._freely(place, actor, shop.execute)
        key = shop.prefix + "a"
        assert provider.paid[key] == (0 if undone else 1), story
        assert last.status == ERROR if undone else last in replies, story


@pytest.fixture(params=["sqlite", *LEVELS])
async def bench(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    async with AsyncExitStack() as stack:
        connections: list[Any] = []
        for _ in range(3):
            if request.param == "sqlite":
                connections.append(await aiosqlite.connect(str(tmp_path / "participant.db"), timeout=20))
            else:
                connections.append(await asyncpg.connect(request.getfixturevalue("postgres_urls")[request.param]))
            stack.push_async_callback(connections[-1].close)
        monitor = None if request.param == "sqlite" else connections[2]
        preparing = Actor("prepares")
        place = Place({preparing: connections[2]}, monitor)

        async def go_on(label: str) -> None:
            pass

        database = place.database(preparing)
        database.pause = go_on
        await AsyncBarrier[Any](database).create_table()
        yield Bench(connections[:2], monitor)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_i13_i15_two_calls_with_an_effect_elsewhere_in_every_order(bench: Bench, pair: tuple[str, str]) -> None:
    runs = await bench.try_all(pair)
    assert runs >= RUNS_MIN
    if pair != ("compensate", "compensate"):
        assert any("BARRIER_ERROR" in each for each in bench.seen), "one came while the other one was at it"
    if pair == ("execute", "compensate"):
        assert bench.seen["execute UNDONE"] > 0
        assert bench.seen["compensate SUCCESS"] > 0
