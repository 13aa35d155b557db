"""Orchestrators that share a PostgreSQL database: how fast they are together, what a saga costs it, and a takeover."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack

import asyncpg

from amends import Call, Client
from amends.participant.serve import serving
from amends_server.bench.figures import Figures
from amends_server.bench.load import Measured
from amends_server.bench.processes import Node, output_of, running
from amends_server.bench.taken import take
from amends_server.bench.unfinished import make_participant
from amends_server.bench.workloads import BY_NAME, Load
from amends_server.store.postgres.store import PostgresStore

WORKLOAD = BY_NAME["three_steps"]
ORCHESTRATORS = (1, 2, 3)
CONCURRENCY = 192
"""Of all clients together: it divides by two and by three."""

SECONDS = 4.0
TAKEN_OVER = 32
"""Sagas with a call out when one of two orchestrators is killed."""

WAIT_S_MAX = 60.0
POLL_S = 0.05
_NODES = "amends_server.bench.nodes"
_SHARED = """
select count(distinct owner) = $1 and count(*) = (select count(*) from partition)
from partition where owner is not null and expires > clock_timestamp()
"""
_ROWS = """
select coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_upd), 0)
from pg_stat_user_tables where schemaname = current_schema() and relname = any($1)
"""
_OF_SAGAS = ["saga", "event", "label"]


async def measure_shared(url: str, seconds: float) -> AsyncGenerator[Figures]:
    """Measure on a database that is for nothing else. Its tables are made if they are not there."""
    taken = take()
    with ExitStack() as stack:
        served = await asyncio.to_thread(stack.enter_context, running(_NODES, "participant", "session"))
        for concurrency in (1, CONCURRENCY):
            sagas, values = await _measure_costs(url, served.address, concurrency, seconds)
            yield Figures(workload="shared_cost", sagas=sagas, values={"at_a_time": concurrency, **values}, taken=taken)
        for count in ORCHESTRATORS:
            rates = await _measure_rate(url, served.address, count, CONCURRENCY, seconds)
            values = {
                "orchestrators": count,
                "sagas_per_s": round(sum(rate["sagas_per_s"] for rate in rates)),
                "p50_ms": round(max(rate["p50_ms"] for rate in rates), 1),
                "p99_ms": round(max(rate["p99_ms"] for rate in rates), 1),
            }
            sagas = sum(rate["sagas"] for rate in rates)
            yield Figures(workload="shared_rate", sagas=sagas, values=values, taken=taken)
    yield Figures(workload="shared_takeover", sagas=TAKEN_OVER, values=await _measure_takeover(url), taken=taken)


async def _measure_costs(url: str, address: str, concurrency: int, seconds: float) -> tuple[int, dict[str, float]]:
    """Compare the database's counters of before and after, when no orchestrator runs: they are late otherwise.

    Round trips and CPU are those of the time under load, with what the orchestrator does by itself meanwhile;
    transactions are those of its start, too.
    """
    await _make_tables(url)
    before = await _counters(url)
    with ExitStack() as stack:
        node = await _orchestrator(stack, url, address, "counted")
        await _until_shared(url, 1)
        waited, worked_s = await asyncio.to_thread(node.count), node.cpu_s()
        (rate,) = await _load([node], concurrency, seconds)
        waited, worked_s = await asyncio.to_thread(node.count) - waited, node.cpu_s() - worked_s
        await asyncio.to_thread(stack.close)
    after = await _counters(url)
    names = ("rows_inserted", "rows_updated", "transactions", "wal_bytes", "round_trips", "orchestrator_cpu_ms")
    spent = [*(late - early for late, early in zip(after, before, strict=True)), waited, 1_000 * worked_s]
    sagas = rate["sagas"]
    return sagas, {f"{name}_per_saga": round(each / sagas, 2) for name, each in zip(names, spent, strict=True)}


async def _make_tables(url: str) -> None:
    """Have them there before it is looked what sagas cost."""
    store = PostgresStore(url)
    await store.open()
    await store.close()


async def _counters(url: str) -> list[float]:
    db = await asyncpg.connect(url)
    try:
        inserted, updated = await db.fetchrow(_ROWS, _OF_SAGAS) or (0, 0)
        commits = await db.fetchval("select xact_commit from pg_stat_database where datname = current_database()")
        wal_bytes = await db.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return [float(count) for count in (inserted, updated, commits, wal_bytes)]
    finally:
        await db.close()


async def _measure_rate(url: str, address: str, count: int, concurrency: int, seconds: float) -> list[Measured]:
    """Have each of so many orchestrators be given its part of the sagas by a client of its own."""
    with ExitStack() as stack:
        nodes = [await _orchestrator(stack, url, address) for _ in range(count)]
        await _until_shared(url, count)
        rates = await _load(nodes, concurrency, seconds)
        await asyncio.to_thread(stack.close)
    return rates


async def _load(nodes: Sequence[Node], concurrency: int, seconds: float) -> list[Measured]:
    part = (WORKLOAD.name, str(concurrency // len(nodes)), str(seconds))
    outputs = (asyncio.to_thread(output_of, _NODES, "load", "session", node.address, *part) for node in nodes)
    return [json.loads(output) for output in await asyncio.gather(*outputs)]


async def _orchestrator(stack: ExitStack, url: str, address: str, role: str = "orchestrator") -> Node:
    return await asyncio.to_thread(stack.enter_context, running(_NODES, role, url, address))


async def _until_shared(url: str, count: int) -> None:
    """Wait until so many orchestrators own all partitions between them."""
    db = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            while not await db.fetchval(_SHARED, count):  # noqa: ASYNC110 - other processes tell nobody
                await asyncio.sleep(POLL_S)
    finally:
        await db.close()


async def _measure_takeover(url: str) -> dict[str, float]:
    """Kill one of two orchestrators while its sagas have calls out; the calls of the other one come again."""
    epochs: dict[str, int] = {}
    again: list[float] = []

    async def first(call: Call) -> None:
        if epochs.setdefault(call.saga_id, call.epoch) == call.epoch and not again:
            await asyncio.Event().wait()
        elif epochs[call.saga_id] != call.epoch:
            again.append(time.monotonic())

    async with serving(make_participant(first)) as address:
        with ExitStack() as stack:
            node, _ = [await _orchestrator(stack, url, address) for _ in range(2)]
            await _until_shared(url, 2)
            async with Client(node.address) as client:
                for _ in range(TAKEN_OVER):
                    await client.start(WORKLOAD.definition(), Load("x"))
                await _until(lambda: len(epochs) == TAKEN_OVER)
                killed = time.monotonic()
                node.kill()
                await _until(lambda: bool(again))
            await asyncio.to_thread(stack.close)
    return {"first_call_s": round(again[0] - killed, 2)}


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not holds():  # noqa: ASYNC110 - what is waited for is counted in a handler
            await asyncio.sleep(POLL_S)
