"""Group E: many sagas at once, each on its own, and none held up by another's participant."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends import SagaHandle, SagaStatus
from amends.errors import Compensated
from participants.shop.inventory import ledger as stock
from participants.shop.payment import ledger as balances
from participants.shop.saga import Order, order
from participants.shop.services import serving_shop
from participants.shop.shipping import ledger as parcels
from tests.acceptance.harness import Gate, ScriptedParticipant, World, definition, refuse, step

OTHERS_S = 25.0
"""For fifty sagas of three steps that wait for nobody: some hundred times what they take."""


@pytest.fixture
async def slow(world: World) -> AsyncIterator[ScriptedParticipant]:
    """A second participant."""
    participant = ScriptedParticipant("slow", world.ledger)
    await world.add_participant(participant)
    yield participant
    await participant.close()


@pytest.mark.parametrize("count", [5, 500])
async def test_e45_sagas_at_once_have_each_their_own_state(world: World, count: int) -> None:
    """A third of them is refused at the end, and turns back alone."""
    ids = [f"s{i:03}" for i in range(count)]
    for saga in ids[::3]:
        world.worker.on("three", refuse("NO", f"not {saga}"), saga=saga)
    made = definition(
        "d",
        *(step(name, input={"of": "${input.id}"}) for name in ("one", "two", "three")),
        output={"id": "${input.id}"},
    )
    await world.client.register(made)
    started = await asyncio.gather(*(world.client.start("d", {"id": saga}, id=saga) for saga in ids))
    listed = Counter([view.id async for view in world.client.list()])
    assert listed == Counter(ids)
    ends = dict(zip(ids, await asyncio.gather(*(end_of(saga) for saga in started)), strict=True))
    refused = set(ids[::3])
    assert ends == {saga: f"step three: NO: not {saga}" if saga in refused else {"id": saga} for saga in ids}
    for saga in ids:
        undos = ["undo two", "undo one"] if saga in refused else []
        assert world.ledger.names(saga) == ["one", "two", "three", *undos]
        inputs = {call.execute_request.input.json for call in world.ledger.calls(saga) if not call.compensating}
        assert inputs == {f'{{"of":"{saga}"}}'}
    completed = [view.id async for view in world.client.list(status=SagaStatus.COMPLETED)]
    assert sorted(completed) == sorted(set(ids) - refused)


async def end_of(saga: SagaHandle[object]) -> object:
    """The saga's result, or what turned it back."""
    try:
        return await saga.result()
    except Compensated as compensated:
        return str(compensated.cause)


async def test_e47_twenty_orders_at_once(world: World, tmp_path: Path) -> None:
    async with serving_shop(tmp_path, orchestrator=world.orchestrator.address):
        orders = [Order(customer="ada", sku="tea", quantity=1, address=f"{i} Rue de Rivoli, Paris") for i in range(20)]
        started = await asyncio.gather(*(world.client.start(order, each) for each in orders))
        receipts = await asyncio.gather(*(saga.result() for saga in started))
        assert {(await saga.status()).status for saga in started} == {SagaStatus.COMPLETED}
        assert stock.amounts() == {"tea": 80, "mug": 50, "pot": 25}
        assert balances.amounts() == {"ada": 800, "bob": 500, "cyd": 200}
        assert len(parcels.entries()) == 20
        assert len({receipt.tracking for receipt in receipts}) == 20
        assert {receipt.amount for receipt in receipts} == {10}


async def test_e47_orders_at_once_sell_no_more_than_there_is(world: World, tmp_path: Path) -> None:
    """25 pots, 30 orders of one: the customer could pay for them only thrice."""
    async with serving_shop(tmp_path, orchestrator=world.orchestrator.address):
        orders = [Order(customer="cyd", sku="pot", quantity=1, address="Paris")] * 30
        started = await asyncio.gather(*(world.client.start(order, each) for each in orders))
        ends = Counter([(await saga.wait()).status for saga in started])
        assert ends == {SagaStatus.COMPLETED: 3, SagaStatus.COMPENSATED: 27}
        assert stock.amounts()["pot"] == 22
        assert balances.amounts()["cyd"] == 20
        assert len(parcels.entries()) == 3


@pytest.mark.parametrize("concurrency_max", [0, 10], ids=["all in flight", "most in the queue"])
async def test_e48_sagas_that_wait_for_a_slow_participant_do_not_slow_others(
    world: World, slow: ScriptedParticipant, concurrency_max: int
) -> None:
    gate = Gate()
    slow.on("crawl", gate.before())
    await world.client.put_participant("slow", slow.address, concurrency_max=concurrency_max)
    await world.client.register(definition("crawling", step("crawl", participant="slow")))
    await world.client.register(definition("quick", "one", "two", "three"))
    waiting = [await world.client.start("crawling", None, id=f"slow{i}") for i in range(200)]
    await gate.reached(concurrency_max or 200)
    began_s = time.monotonic()
    others = await asyncio.gather(*(world.client.start("quick", None, id=f"quick{i}") for i in range(50)))
    assert {(await saga.wait()).status for saga in others} == {SagaStatus.COMPLETED}
    assert time.monotonic() - began_s < OTHERS_S
    assert gate.waiting == (concurrency_max or 200)
    gate.release()
    assert {(await saga.wait()).status for saga in waiting} == {SagaStatus.COMPLETED}
    assert len(world.ledger.calls(name="crawl")) == 200


async def test_e48_nor_do_those_whose_participant_is_gone(world: World, slow: ScriptedParticipant) -> None:
    await slow.stop()
    crawl = step("crawl", participant="slow", attempts=-1, interval_s=0.2)
    await world.client.register(definition("gone", crawl))
    await world.client.register(definition("quick", "one", "two", "three"))
    waiting = [await world.client.start("gone", None, id=f"gone{i}") for i in range(100)]
    began_s = time.monotonic()
    others = await asyncio.gather(*(world.client.start("quick", None, id=f"quick{i}") for i in range(50)))
    assert {(await saga.wait()).status for saga in others} == {SagaStatus.COMPLETED}
    assert time.monotonic() - began_s < OTHERS_S
    await slow.start()
    async with asyncio.timeout(OTHERS_S):
        assert {(await saga.wait()).status for saga in waiting} == {SagaStatus.COMPLETED}
