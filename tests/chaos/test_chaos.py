"""The chaos in small: a short run of it, and that its parts see and do what they are for."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field, replace

import pytest

from amends import SagaStatus
from tests.chaos.diary import Known, Order
from tests.chaos.judge import Books, End, Line, judge
from tests.chaos.node import ROOT
from tests.chaos.plan import OF_COMMITS, OF_CONNECTIONS, OF_PROCESSES, Kind, Target, plan
from tests.chaos.proxy import COMMIT, Proxy, Trap
from tests.chaos.transfers import ACCOUNTS, BALANCE

SECONDS = 3
WAIT_S = 30
TARGETS = (Target("one", (*OF_PROCESSES, *OF_CONNECTIONS)), Target("two", OF_COMMITS), Target("db", (Kind.FAIL_OVER,)))

ORDER = Order(
    id="t1", source_bank="north", source="a", destination_bank="south", destination="b", amount=10, forward=False
)
DEBIT = Line("north", "default/t1/debit/execute", "debit", "a", -10)
CREDIT = Line("south", "default/t1/credit/execute", "credit", "b", 10)
DONE = End(SagaStatus.COMPLETED, 5)
UNDONE = End(SagaStatus.COMPENSATED, 5)


async def test_a_short_run_loses_and_doubles_nothing() -> None:
    store = os.environ.get("AMENDS_TEST_STORE") or "sqlite"
    seed = os.environ.get("AMENDS_SEED") or str(random.randrange(2**32))
    command = ("-m", "tests.chaos", "--seed", seed, "--seconds", str(SECONDS), "--store", store)
    run = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await run.communicate()
    assert run.returncode == 0, said.decode()


def books(*lines: Line) -> Books:
    """The books of two banks in which these lines are, and what follows from them."""
    amounts = {(bank, account): BALANCE for bank in ("north", "south") for account in ACCOUNTS}
    for line in lines:
        amounts[line.bank, line.account] += line.amount
    return Books(amounts, list(lines))


def undo(line: Line) -> Line:
    return replace(line, kind="reversal", amount=-line.amount)


def told(end: End | None, *lines: Line, **more: list[int] | list[str] | bool) -> list[str]:
    each = Known(ORDER, acknowledged=True, watched=True, **more)  # type: ignore[arg-type]
    return judge({"t1": each}, {} if end is None else {"t1": end}, books(*lines))


def test_the_judge_finds_nothing_wrong_with_what_is_right() -> None:
    assert told(DONE, DEBIT, CREDIT, seen=[1, 2, 3, 4, 5], ends=["COMPLETED"]) == []
    assert told(UNDONE, cancelled=True) == []
    assert told(UNDONE, DEBIT, undo(DEBIT), ends=["COMPENSATED"]) == []
    assert told(UNDONE, DEBIT, CREDIT, undo(CREDIT), undo(DEBIT), seen=[1, 2]) == []
    assert judge({"t1": Known(ORDER, given_up=True)}, {}, books()) == []


@pytest.mark.parametrize(
    ("words", "violations"),
    [
        ("is lost", told(None)),
        ("had effects", told(None, DEBIT, CREDIT)),
        ("now there are 7990", told(DONE, DEBIT)),
        ("moved", told(DONE, DEBIT)),
        ("moved", told(DONE)),
        ("was undone", told(DONE, DEBIT, CREDIT, DEBIT, undo(DEBIT))),
        ("effective 2 times", told(DONE, DEBIT, DEBIT, CREDIT, CREDIT)),
        ("undone 2 times", told(UNDONE, DEBIT, undo(DEBIT), undo(DEBIT))),
        ("is left", told(UNDONE, DEBIT, CREDIT)),
        ("is left", told(UNDONE, undo(DEBIT))),
        ("is STUCK", told(End(SagaStatus.STUCK, 5), DEBIT)),
        ("is RUNNING", told(End(SagaStatus.RUNNING, 5), DEBIT)),
        ("were told", told(DONE, DEBIT, CREDIT, ends=["COMPLETED", "COMPENSATED"])),
        ("is cancelled", told(DONE, DEBIT, CREDIT, cancelled=True)),
        ("saw the events", told(DONE, DEBIT, CREDIT, seen=[1, 2, 4])),
        ("saw the events", told(DONE, DEBIT, CREDIT, seen=[1, 2, 2])),
        ("saw 6 events", told(DONE, DEBIT, CREDIT, seen=[1, 2, 3, 4, 5, 6])),
        ("nobody wanted", judge({}, {"t2": UNDONE}, books())),
        ("should be", judge({}, {}, Books({**books().amounts, ("north", "a"): 0, ("north", "b"): 2000}, []))),
    ],
)
def test_the_judge_sees(words: str, violations: list[str]) -> None:
    assert any(words in violation for violation in violations), violations


def test_a_plan_follows_from_its_seed() -> None:
    assert plan(7, 20, TARGETS) == plan(7, 20, TARGETS)
    assert plan(7, 20, TARGETS) != plan(8, 20, TARGETS)
    strikes = [strike for seed in range(50) for strike in plan(seed, 20, TARGETS, long_s=2)]
    assert {strike.kind for strike in strikes} >= {*OF_PROCESSES, *OF_CONNECTIONS, *OF_COMMITS, Kind.FAIL_OVER}
    assert any(strike.for_s > 2 for strike in strikes)
    for seed in range(50):
        lost = [strike for strike in plan(seed, 60, TARGETS) if strike.kind is Kind.FAIL_OVER]
        assert len(lost) <= 1


@dataclass(frozen=True, slots=True)
class Echo:
    """A server that says everything back and keeps what it got, and the proxy before it."""

    proxy: Proxy = field(default_factory=Proxy)
    got: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    dialling: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError):
            while block := await reader.read(100):
                self.got.put_nowait(block)
                writer.write(block)

    async def heard(self) -> bytes:
        return await asyncio.wait_for(self.got.get(), WAIT_S)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.proxy.address.split(":"))
        self.dialling.enter_context(closing(writer))
        return reader, writer

    async def dialled(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection over which something has gone to and fro."""
        reader, writer = await self.dial()
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), WAIT_S) == b"hello"
        assert await self.heard() == b"hello"
        return reader, writer


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    await made.proxy.open()
    made.proxy.target = server.sockets[0].getsockname()
    async with server, made.dialling:
        yield made
        await made.proxy.close()


async def test_the_proxy_resets_connections_and_refuses_new_ones(echo: Echo) -> None:
    reader, _ = await echo.dialled()
    echo.proxy.refuses = True
    echo.proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), WAIT_S)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await echo.dialled()
    echo.proxy.go_on()
    await echo.dialled()


async def test_the_proxy_lets_answers_hang_and_lets_them_through_later(echo: Echo) -> None:
    reader, writer = await echo.dialled()
    echo.proxy.stall(up=False)
    writer.write(b"again")
    assert await echo.heard() == b"again"
    answer = asyncio.create_task(reader.readexactly(5))
    other_reader, other = await echo.dial()
    other.write(b"other")
    assert await echo.heard() == b"other"
    assert not answer.done()
    echo.proxy.go_on()
    assert await asyncio.wait_for(answer, WAIT_S) == b"again"
    assert await asyncio.wait_for(other_reader.readexactly(5), WAIT_S) == b"other"


@pytest.mark.parametrize("passes_on", [True, False])
async def test_the_proxy_cuts_a_commit_off(echo: Echo, passes_on: bool) -> None:
    reader, writer = await echo.dialled()
    echo.proxy.trap = Trap(passes_on=passes_on)
    writer.write(COMMIT)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), WAIT_S)
    if passes_on:
        assert await echo.heard() == COMMIT
    await echo.dialled()  # and it heard of nothing else
