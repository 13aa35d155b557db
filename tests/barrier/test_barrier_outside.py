"""Effects outside the database: intents, repetitions of which nobody knows the outcome, and who may hold them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from amends import Call, InProgress, Participant, Refused, barrier
from amends.barrier import Intent
from amends.barrier._statements import RELEASE, WITHDRAW
from amends.payloads import decode, encode
from amends.v1 import participant_pb2, saga_pb2
from tests.barrier.conftest import CASES
from tests.barrier.kinds import Kind, done
from tests.barrier.world import ABORTED, ERROR, SUCCESS, SYSTEM_ERROR, Status

OUTSIDE_KINDS = ("sqlite3", "aiosqlite", "asyncpg", "psycopg", "core", "async-session")
OUTSIDE_CASES = [case for case in CASES if case[0].name in OUTSIDE_KINDS]
HOLD_S = 30.0


@dataclass
class Provider:
    """A service far away: what was paid there, and what it does next."""

    paid: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    behave: Callable[[], None] = lambda: None

    def pay(self, key: str, repeated: bool) -> str:
        self.asked.append(("pay", repeated))
        if repeated and key in self.paid:
            return self.paid[key]
        assert key not in self.paid, "paid twice"
        self.paid[key] = f"P-{len(self.asked)}"
        self.behave()
        return self.paid[key]

    def refund(self, key: str, payment: str | None, repeated: bool) -> None:
        self.asked.append((f"refund {payment}", repeated))
        found = self.paid.pop(key, None)
        assert payment in (None, found) or repeated
        self.behave()

    def broken(self) -> None:
        def behave() -> None:
            self.behave = lambda: None
            raise ConnectionError("lost the answer")

        self.behave = behave


@dataclass
class Shop:
    provider: Provider
    participant: Participant
    barrier: Any
    prefix: str

    async def execute(self, key: str = "a", input: int = 5) -> saga_pb2.Reply:
        call = participant_pb2.Call(step="charge", key=self.prefix + key)
        request = participant_pb2.ExecuteRequest(call=call, action="charge", input=encode(input))
        return (await self.participant.servicer().Execute(request, ABORTED)).reply

    async def compensate(self, key: str = "a", output: object = None, input: int = 5) -> saga_pb2.Reply:
        call = participant_pb2.Call(step="charge", key=f"{self.prefix}{key}/undo")
        request = participant_pb2.CompensateRequest(
            call=call, action="charge", execute_key=self.prefix + key, input=encode(input)
        )
        if output is not None:
            request.output.CopyFrom(encode(output))
        return (await self.participant.servicer().Compensate(request, ABORTED)).reply

    async def change(self, **columns: object) -> None:
        """Change the row as time or another process would."""
        sets = ", ".join(f"{name} = {value!r}" for name, value in columns.items())
        async with self.barrier._database.transaction() as tx:
            await done(self.run(tx, f"UPDATE amends_barrier SET {sets} WHERE key = '{self.prefix}a'"))

    def run(self, tx: Any, statement: str) -> Any:
        from sqlalchemy import text

        return tx.execute(text(statement) if "sqlalchemy" in type(tx).__module__ else statement)


def plain(participant: Participant, barrier: Any, provider: Provider) -> None:
    @participant.action(barrier=barrier.outside(hold_s=HOLD_S))
    def charge(request: int, call: Call, intent: Intent) -> str:
        return provider.pay(call.key, intent.repeated)

    @charge.compensation
    def refund(request: int, done: str | None, call: Call, intent: Intent) -> None:
        provider.refund(call.execute_key, done, intent.repeated)


def asynchronous(participant: Participant, barrier: Any, provider: Provider) -> None:
    @participant.action(barrier=barrier.outside(hold_s=HOLD_S))
    async def charge(request: int, call: Call, intent: Intent) -> str:
        return provider.pay(call.key, intent.repeated)

    @charge.compensation
    async def refund(request: int, done: str | None, call: Call, intent: Intent) -> None:
        provider.refund(call.execute_key, done, intent.repeated)


@pytest.fixture(params=OUTSIDE_CASES, ids=lambda case: "-".join(filter(None, (case[0].name, case[1] or "sqlite"))))
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    kind, level = request.param
    assert isinstance(kind, Kind)
    place = request.getfixturevalue("postgres_urls")[level] if level else str(tmp_path / "participant.db")
    async with AsyncExitStack() as stack:
        barrier, provider, participant = kind.make(place, stack), Provider(), Participant("payment")
        await done(barrier.create_table())
        (asynchronous if barrier.is_async else plain)(participant, barrier, provider)
        yield Shop(provider, participant, barrier, f"outside-{request.node.name}-")


async def test_an_outcome_that_was_kept_is_given_again(shop: Shop) -> None:
    first = await shop.execute()
    assert (decode(first.output, str), first.stored) == ("P-1", True)
    assert await shop.execute() == first
    assert shop.provider.asked == [("pay", False)]


async def test_a_refusal_is_kept(shop: Shop) -> None:
    def refuse() -> None:
        shop.provider.paid.clear()
        raise Refused("NO_FUNDS")

    shop.provider.behave = refuse
    first = await shop.execute()
    assert (first.status, first.error.code, first.stored) == (ERROR, "NO_FUNDS", True)
    assert await shop.execute() == first
    assert (await shop.compensate()).status == SUCCESS
    assert shop.provider.asked == [("pay", False)]


async def test_a_refusal_that_may_pass_takes_its_intent_back(shop: Shop) -> None:
    def busy() -> None:
        shop.provider.paid.clear()
        raise Refused("BUSY", again=True)

    shop.provider.behave = busy
    for _ in range(2):
        reply = await shop.execute()
        assert (reply.status, reply.error.code, reply.stored) == (ERROR, "BUSY", False)
    shop.provider.behave = lambda: None
    assert (await shop.execute()).status == SUCCESS
    assert shop.provider.asked == [("pay", False)] * 3, "no attempt has left anything in doubt"


async def test_a_refusal_that_may_pass_leaves_an_attempt_before_it_in_doubt(shop: Shop) -> None:
    def busy() -> None:
        raise Refused("BUSY", again=True)

    shop.provider.broken()
    assert (await shop.execute()).status == SYSTEM_ERROR
    paid = dict(shop.provider.paid)
    shop.provider.paid.clear()  # it is under way still, and not to be found
    shop.provider.behave = busy
    assert (await shop.execute()).stored is False
    shop.provider.paid, shop.provider.behave = paid, lambda: None
    assert decode((await shop.execute()).output, str) == "P-1"
    assert [repeated for _, repeated in shop.provider.asked] == [False, True, True]


async def test_an_intent_without_outcome_is_told_to_be_repeated(shop: Shop) -> None:
    shop.provider.broken()
    assert (await shop.execute()).status == SYSTEM_ERROR
    reply = await shop.execute()
    assert (reply.status, decode(reply.output, str)) == (SUCCESS, "P-1")
    assert shop.provider.asked == [("pay", False), ("pay", True)]


async def test_after_a_crash_the_intent_is_held_until_its_time_is_over(shop: Shop) -> None:
    shop.provider.broken()
    await shop.execute()
    await shop.change(holder="a dead process", held_until=10**12)
    for call in (shop.execute, shop.compensate):
        busy = await call()
        assert (busy.status, busy.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
        assert "ask again later" in busy.error.message
    assert len(shop.provider.asked) == 1
    await shop.change(held_until=1)
    assert (await shop.execute()).status == SUCCESS
    assert shop.provider.asked[1:] == [("pay", True)]


async def test_what_another_attempt_took_over_is_not_decided_by_the_first(shop: Shop) -> None:
    started = 0

    def overtaken() -> None:
        nonlocal started
        started += 1

    shop.provider.behave = overtaken
    original = shop.barrier._database.fetch

    async def late(tx: Any, statement: Any, **parameters: Any) -> Any:
        if parameters.get("state") == "succeeded":  # the outcome is about to be kept
            parameters["holder"] = "overtaken"
        return await original(tx, statement, **parameters)

    shop.barrier._database.fetch = late
    reply = await shop.execute()
    assert (reply.status, reply.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
    shop.barrier._database.fetch = original
    assert (await shop.execute()).status == SUCCESS
    assert shop.provider.asked == [("pay", False), ("pay", True)]


@pytest.mark.parametrize("shop", OUTSIDE_CASES[:1], indirect=True, ids=["sqlite3"])
@pytest.mark.parametrize("error", [Refused("LATER", "come again", again=True), ConnectionError("lost the answer")])
async def test_i13_what_another_attempt_took_over_is_not_given_up_by_the_first(shop: Shop, error: Exception) -> None:
    """A third one would begin beside the second."""

    def fail() -> None:
        raise error

    async def late(tx: Any, statement: Any, **parameters: Any) -> Any:
        if statement in (WITHDRAW, RELEASE):
            parameters["holder"] = "overtaken"
        return await original(tx, statement, **parameters)

    original, shop.provider.behave = shop.barrier._database.fetch, fail
    shop.barrier._database.fetch = late
    await shop.execute()
    shop.barrier._database.fetch = original
    busy = await shop.execute()
    assert (busy.status, busy.error.code) == (SYSTEM_ERROR, "BARRIER_ERROR")
    assert shop.provider.asked == [("pay", False)]


async def test_i14_i15_nothing_is_asked_for_what_never_began(shop: Shop) -> None:
    assert (await shop.compensate()).status == SUCCESS
    late = await shop.execute()
    assert (late.status, late.error.code) == (ERROR, "UNDONE")
    assert (await shop.compensate("b", output="P-9")).error.code == "BARRIER_ERROR"
    assert shop.provider.asked == []


async def test_what_was_done_is_undone_once_with_its_output(shop: Shop) -> None:
    await shop.execute()
    first = await shop.compensate()
    assert (first.status, await shop.compensate()) == (SUCCESS, first)
    assert (await shop.execute()).error.code == "UNDONE"
    assert shop.provider.asked == [("pay", False), ("refund P-1", False)]
    assert shop.provider.paid == {}


async def test_what_may_have_been_done_is_undone_without_an_output(shop: Shop) -> None:
    shop.provider.broken()
    await shop.execute()
    assert (await shop.compensate()).status == SUCCESS
    assert shop.provider.asked[1:] == [("refund None", False)]
    assert shop.provider.paid == {}


async def test_what_was_completed_from_elsewhere_is_undone_with_its_output(shop: Shop) -> None:
    def later() -> None:
        raise InProgress

    shop.provider.behave = later
    assert (await shop.execute()).status == saga_pb2.REPLY_STATUS_IN_PROGRESS
    shop.provider.behave = lambda: None
    assert (await shop.compensate(output="P-1")).status == SUCCESS
    assert shop.provider.asked[1:] == [("refund P-1", False)]


async def test_an_undoing_without_outcome_is_repeated_and_no_execute_comes_between(shop: Shop) -> None:
    await shop.execute()
    shop.provider.broken()
    assert (await shop.compensate()).status == SYSTEM_ERROR
    assert (await shop.execute()).error.code == "UNDONE"
    assert (await shop.compensate()).status == SUCCESS
    assert shop.provider.asked[1:] == [("refund P-1", False), ("refund P-1", True)]


async def test_the_same_key_many_times_at_once_is_asked_for_once(shop: Shop) -> None:
    replies = await asyncio.gather(*(shop.execute() for _ in range(8)))
    assert shop.provider.asked == [("pay", False)]
    assert {reply.status for reply in replies} <= {SUCCESS, SYSTEM_ERROR}
    assert SUCCESS in {reply.status for reply in replies}


async def test_a_key_with_another_input_asks_for_nothing_whatever_became_of_it(shop: Shop) -> None:
    async def turned_away() -> None:
        for call in (shop.execute(input=6), shop.compensate(input=6)):
            with pytest.raises(Status, match="another input"):
                await call

    shop.provider.broken()
    await shop.execute()
    await turned_away()
    await shop.change(holder="another attempt", held_until=10**12)
    await turned_away()
    await shop.change(held_until=1)
    assert (await shop.execute()).status == SUCCESS
    await turned_away()
    shop.provider.broken()
    assert (await shop.compensate()).status == SYSTEM_ERROR
    await turned_away()
    assert (await shop.compensate()).status == SUCCESS
    assert (await shop.compensate(input=6)).status == SUCCESS, "there is nothing under this key"
    asked = [("pay", False), ("pay", True), ("refund P-1", False), ("refund P-1", True)]
    assert shop.provider.asked == asked


async def test_an_attempt_that_takes_too_long_is_cancelled(tmp_path: Path) -> None:
    kind, _ = next(case for case in CASES if case[0].name == "aiosqlite")
    async with AsyncExitStack() as stack:
        barrier, slow, told = kind.make(str(tmp_path / "a.db"), stack), Participant("slow"), list[bool]()
        await barrier.create_table()

        @slow.action(barrier=barrier.outside(hold_s=0.05))
        async def charge(request: int, call: Call, intent: Intent) -> str:
            told.append(intent.repeated)
            if len(told) == 1:
                await asyncio.Event().wait()
            return "P"

        shop = Shop(Provider(), slow, barrier, "k")
        async with asyncio.timeout(HOLD_S):
            while (reply := await shop.execute()).status != SUCCESS:  # also if it takes too long to begin
                assert reply.error.code == "TIMEOUT_ERROR"
        assert told[1:] == [True]
        with pytest.raises(ValueError, match="above 0"):
            barrier.outside(hold_s=0)


async def test_i13_an_attempt_whose_time_was_over_before_it_could_begin_does_not_begin(tmp_path: Path) -> None:
    """Another one has taken over by then, and looks for an effect that is not there yet."""
    hold_s, paid, kept, gate = 0.05, list[bool](), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def connect() -> AsyncGenerator[aiosqlite.Connection, None]:
        async with aiosqlite.connect(tmp_path / "a.db", timeout=20) as connection:
            yield connection
        if slow and not kept.is_set():
            kept.set()
            await gate.wait()

    slow, once, payment = False, barrier.aiosqlite(connect), Participant("payment")
    await once.create_table()

    @payment.action(barrier=once.outside(hold_s=hold_s))
    async def charge(request: int, call: Call, intent: Intent) -> str:
        paid.append(intent.repeated)
        return "P"

    slow, shop = True, Shop(Provider(), payment, once, "k")
    async with asyncio.timeout(HOLD_S):
        first = asyncio.create_task(shop.execute())
        await kept.wait()
        while (await shop.execute()).status != SUCCESS:  # until the first may not hold its intent any more
            pass
        gate.set()
        assert (await first).error.code == "TIMEOUT_ERROR"
    assert paid == [True]
