"""Case 41 and kill -9 at random moments: many sagas in all states, and all of them whole or undone in the end."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from amends import Client, SagaStatus
from amends.errors import NotFound, Unavailable
from amends.v1 import operator_pb2
from participants.bank.saga import Transfer, transfer
from tests.acceptance.harness import (
    WAIT_S,
    Gate,
    Process,
    World,
    definition,
    refuse,
    step,
    succeed,
    system_error,
)

COMPLETED, COMPENSATED, STUCK = SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.STUCK

LINE = definition("line", *(step(name, interval_s=0.6, undo_attempts=2) for name in ("one", "two", "three")))
GROUP = definition(
    "group", "one", step("left", after=["one"]), step("right", after=["one"]), step("three", after=["left", "right"])
)


@dataclass(frozen=True, slots=True)
class State:
    """A state to be killed in: what the participant does, the event that shows it, and the end after the restart."""

    name: str
    end: SagaStatus
    event: str
    step: str | None = None
    group: bool = False

    @property
    def steps(self) -> list[str]:
        return ["one", "left", "right", "three"] if self.group else ["one", "two", "three"]


STATES = (
    State("first", COMPLETED, "step_dispatched", "one"),
    State("middle", COMPLETED, "step_dispatched", "two"),
    State("unrecorded", COMPLETED, "step_dispatched", "three"),
    State("backoff", COMPLETED, "step_retry_scheduled", "two"),
    State("branches", COMPLETED, "step_succeeded", "left", group=True),
    State("branches_back", COMPENSATED, "saga_turned_back", group=True),
    State("undoing", COMPENSATED, "compensation_dispatched", "two"),
    State("undoing_backoff", COMPENSATED, "compensation_retry_scheduled", "two"),
    State("cancelled", COMPENSATED, "saga_turned_back"),
    State("completed", COMPLETED, "saga_completed"),
    State("compensated", COMPENSATED, "saga_compensated"),
    State("stuck", COMPENSATED, "saga_stuck"),
    State("paused", COMPLETED, "saga_paused"),
)
SAGAS_EACH = 8
"""So that there are about a hundred."""


def script(world: World, gate: Gate, state: str, saga: str) -> None:
    """Have the participant bring the saga into the state, and let it go on when the gate is open."""
    on = world.worker.on
    match state:
        case "first":
            on("one", gate.before(), saga=saga)
        case "middle" | "cancelled" | "paused":
            on("two", gate.before(), saga=saga)
        case "unrecorded":
            on("three", gate.after(), saga=saga)
        case "backoff":
            on("two", system_error(), succeed(), saga=saga)
        case "branches":
            on("right", gate.before(), saga=saga)
        case "branches_back":
            on("left", refuse("NO"), saga=saga)
            on("right", gate.after(), saga=saga)
        case "undoing":
            on("three", refuse("NO"), saga=saga)
            on("undo two", gate.after(), saga=saga)
        case "undoing_backoff":
            on("three", refuse("NO"), saga=saga)
            on("undo two", system_error(), succeed(), saga=saga)
        case "compensated":
            on("three", refuse("NO"), saga=saga)
        case "stuck":
            on("three", refuse("NO"), saga=saga)
            on("undo two", system_error(), system_error(), succeed(), saga=saga)
        case _:
            assert state == "completed"


async def bring(world: World, gate: Gate, state: State, saga: str) -> None:
    """Start a saga and wait until it is in the state."""
    script(world, gate, state.name, saga)
    handle = await world.client.start("group" if state.group else "line", {"id": saga}, id=saga)
    if state.name in ("cancelled", "paused"):
        await world.until(saga, "step_dispatched", "two")
    if state.name == "cancelled":
        await handle.cancel("for the test")
    if state.name == "paused":
        await world.wire.operator.PauseSaga(operator_pb2.PauseSagaRequest(saga_id=saga, reason="for the test"))
    await world.until(saga, state.event, state.step)


async def test_d41_a_hundred_sagas_in_all_states_end_as_they_should(killable: World, server: Process) -> None:
    gate = Gate()
    sagas = {f"{state.name}-{i}": state for state in STATES for i in range(SAGAS_EACH)}
    assert len(sagas) > 100
    await killable.client.register(LINE)
    await killable.client.register(GROUP)
    await asyncio.gather(*(bring(killable, gate, state, saga) for saga, state in sagas.items()))
    settled = {
        saga: state.end for saga, state in sagas.items() if state.event in ("saga_completed", "saga_compensated")
    }
    before = {saga: await killable.journal(saga) for saga in settled}
    await server.kill()
    gate.release()
    await server.start()
    await mend(killable, sagas)
    for saga, state in sagas.items():
        check(killable, saga, state, (await killable.settled(saga)).status)
    for saga in settled:
        assert await killable.journal(saga) == before[saga]
    listed = [view.id async for view in killable.client.list(status=[COMPLETED, COMPENSATED])]
    assert sorted(listed) == sorted(sagas)


async def mend(world: World, sagas: dict[str, State]) -> None:
    """Do what operators do: retry what is stuck, resume what is paused."""
    for saga, state in sagas.items():
        if state.name == "stuck":
            assert (await world.client.get(saga)).status is STUCK
            await world.client.retry(saga, reason="it is mended")
        elif state.name == "paused":
            request = operator_pb2.ResumeSagaRequest(saga_id=saga, reason="it may go on")
            await world.wire.operator.ResumeSaga(request, wait_for_ready=True)


def check(world: World, saga: str, state: State, status: SagaStatus) -> None:
    """Compare the end with what was to be, and with what the participant did."""
    calls_max = 3 if "backoff" in state.name else 2  # a backoff may be over just before the kill
    assert status is state.end, saga
    assert sorted(world.ledger.effects(saga)) == (sorted(state.steps) if state.end is COMPLETED else []), saga
    for name in state.steps:
        assert world.ledger.effects_ever(saga, name) <= 1, saga
        assert len(world.ledger.keys(saga, name)) <= 1, saga
        assert len(world.ledger.calls(saga, name)) <= calls_max, saga
        assert len(world.ledger.calls(saga, f"undo {name}")) <= (3 if state.name == "stuck" else calls_max), saga


ACCOUNTS = ("a", "b", "c", "d", "e")
BALANCE = 1000
NOWHERE = "nowhere"
TELLERS = 8
KILLS = 6
ENOUGH = 50
"""Starts that were acknowledged, however slow the machine is."""

KILL_S_MAX = 1.2
"""Kills come at random moments up to this long after a start: in the recovery of the last kill, and well after it."""


@asynccontextmanager
async def bank_process(db: Path, orchestrator: str) -> AsyncIterator[None]:
    """The bank as a process, registered at the orchestrator."""
    accounts = (f"--account={name}={BALANCE}" for name in ACCOUNTS)
    command = ("-m", "participants.bank", "--db", db, "--orchestrator", orchestrator, *accounts)
    bank = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert bank.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert (await bank.stdout.readline()).startswith(b"ready ")
        yield
    finally:
        bank.terminate()
        await bank.communicate()


class Tellers:
    """Clients that start transfers as fast as they are carried out, and note which starts were acknowledged."""

    def __init__(self, address: str, rng: random.Random) -> None:
        self.acknowledged: set[str] = set()
        self.unanswered: set[str] = set()
        self._more = asyncio.Event()
        self._address = address
        self._rng = rng
        self._count = 0

    async def work(self) -> None:
        async with Client(self._address, retry_for=0.05) as client:
            while True:
                self._count += 1
                await self._transfer(client, f"t{self._count}")

    async def acknowledged_more_than(self, count: int) -> None:
        """Wait until that many starts were acknowledged, and one more."""
        while len(self.acknowledged) <= count:
            self._more.clear()
            await self._more.wait()

    async def _transfer(self, client: Client, saga: str) -> None:
        source, destination = self._rng.sample((*ACCOUNTS, NOWHERE), 2)
        amount = self._rng.choice((1, 10, 100, 5 * BALANCE))
        try:
            handle = await client.start(transfer, Transfer(source, destination, amount), id=saga)
        except Unavailable:
            self.unanswered.add(saga)
            return
        self.acknowledged.add(saga)
        self._more.set()
        try:
            await handle.wait()
        except Unavailable:
            return  # it was killed meanwhile, and the saga is looked at in the end


async def test_d_kills_at_random_moments_under_load_lose_no_money(tmp_path: Path) -> None:
    seed = int(os.environ.get("AMENDS_SEED", random.randrange(2**32)))
    print(f"AMENDS_SEED={seed}")
    rng, server = random.Random(seed), Process(tmp_path / "amends.db")
    await server.start()
    try:
        async with bank_process(tmp_path / "bank.db", server.address):
            tellers = Tellers(server.address, rng)
            work = [asyncio.create_task(tellers.work()) for _ in range(TELLERS)]
            for _ in range(KILLS):
                await asyncio.sleep(rng.uniform(0, KILL_S_MAX))
                await server.kill()
                await server.start()
            async with asyncio.timeout(WAIT_S):
                await tellers.acknowledged_more_than(ENOUGH)
            for task in work:
                task.cancel()
            assert [r for r in await asyncio.gather(*work, return_exceptions=True) if isinstance(r, Exception)] == []
            ends = await ends_of(server.address, tellers)
    finally:
        await server.stop()
    print(f"{len(tellers.acknowledged)} acknowledged, {len(tellers.unanswered)} not answered")
    assert set(ends.values()) == {COMPLETED, COMPENSATED}
    check_money(tmp_path / "bank.db", ends)


async def ends_of(address: str, tellers: Tellers) -> dict[str, SagaStatus]:
    """How each saga ended; those whose start was not answered may not exist."""
    ends: dict[str, SagaStatus] = {}
    async with Client(address) as client, asyncio.timeout(4 * WAIT_S):  # it may be thousands
        for saga in tellers.acknowledged:
            ends[saga] = (await client.saga(transfer, saga).wait()).status
        for saga in tellers.unanswered:
            try:
                ends[saga] = (await client.saga(transfer, saga).wait()).status
            except NotFound:
                continue
    return ends


def check_money(db: Path, ends: dict[str, SagaStatus]) -> None:
    """Compare the bank's own books with how the sagas ended."""
    with closing(sqlite3.connect(db)) as bank:
        amounts = dict(bank.execute("SELECT subject, amount FROM amount"))
        entries = bank.execute("SELECT key, kind, amount FROM entry").fetchall()
    assert sum(amounts.values()) == BALANCE * len(ACCOUNTS)
    books: dict[str, list[tuple[str, int]]] = {}
    for key, kind, amount in entries:
        books.setdefault(key.split("/")[1], []).append((kind, amount))
    assert set(books) <= set(ends)
    for saga, end in ends.items():
        lines = books.get(saga, [])
        kinds = sorted(kind for kind, _ in lines)
        assert sum(amount for _, amount in lines) == 0, (saga, lines)
        if end is COMPLETED:
            assert kinds == ["credit", "debit"], saga
        else:
            assert kinds in ([], ["debit", "reversal"], ["credit", "debit", "reversal", "reversal"]), (saga, lines)
