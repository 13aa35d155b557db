"""A client registers a definition once, however many starts come at a time, and again when it was forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from amends import AmendsError, Client, InvalidArgument, NotFound, Saga, SagaHandle
from amends.client import _registrations
from amends.v1 import definition_pb2, orchestrator_pb2
from tests.sdk.scripted import Context, ScriptedOrchestrator, refuse, scripted

WAIT_S = 30.0
AT_A_TIME = 50


class Registry:
    """The definitions of a scripted orchestrator: registering is answered while `open`, and refused while `wrong`."""

    def __init__(self, orchestrator: ScriptedOrchestrator) -> None:
        self.orchestrator = orchestrator
        self.open, self.asked = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.wrong = False
        self.known: set[str] = set()
        self.refused_at_once = asyncio.Barrier(1)
        orchestrator.on("RegisterDefinition", self.register)
        orchestrator.on("StartSaga", self.start)

    @property
    def registered(self) -> list[Any]:
        return self.orchestrator.of(orchestrator_pb2.RegisterDefinitionRequest)

    async def register(self, request: orchestrator_pb2.RegisterDefinitionRequest, context: Context) -> object:
        self.asked.set()
        await self.open.wait()
        if self.wrong:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "wrong", reason="INVALID_DEFINITION")
        digest = f"sha256:{len(request.definition.steps)}"
        self.known.add(digest)
        return orchestrator_pb2.RegisterDefinitionResponse(definition=definition_pb2.Definition(digest=digest))

    async def start(self, request: orchestrator_pb2.StartSagaRequest, context: Context) -> object:
        if request.definition.digest not in self.known:
            await self.refused_at_once.wait()
            await refuse(context, grpc.StatusCode.NOT_FOUND, "what?", reason="DEFINITION_NOT_FOUND")
        return orchestrator_pb2.StartSagaResponse(created=True)


@pytest.fixture
async def registry() -> AsyncGenerator[Registry, None]:
    async with scripted() as orchestrator:
        yield Registry(orchestrator)


@pytest.fixture
async def client(registry: Registry) -> AsyncGenerator[Client, None]:
    async with Client(registry.orchestrator.address) as opened, asyncio.timeout(WAIT_S):
        yield opened


def order() -> Saga[Any, dict[str, object]]:
    saga: Saga[Any, dict[str, object]] = Saga("order")
    saga.step("payment/charge")
    return saga


def starting(client: Client, saga: Saga[Any, Any], count: int = AT_A_TIME) -> list[asyncio.Task[SagaHandle[Any]]]:
    return [asyncio.create_task(client.start(saga, number)) for number in range(count)]


async def test_first_starts_at_the_same_time_register_a_definition_once(client: Client, registry: Registry) -> None:
    registry.open.clear()
    starts = [*starting(client, order()), *starting(client, order())]  # equal sagas are one definition
    await registry.asked.wait()
    assert not any(start.done() for start in starts)
    registry.open.set()
    await asyncio.gather(*starts)
    assert len(registry.registered) == 1


async def test_definitions_that_differ_are_registered_beside_each_other(client: Client, registry: Registry) -> None:
    longer = order()
    longer.step("shipping/ship")
    await asyncio.gather(*starting(client, order()), *starting(client, longer))
    assert sorted(len(request.definition.steps) for request in registry.registered) == [1, 2]


async def test_a_failure_is_told_to_all_who_wait_and_the_next_start_tries_again(
    client: Client, registry: Registry
) -> None:
    registry.open.clear()
    registry.wrong = True
    starts = starting(client, order())
    await registry.asked.wait()
    registry.open.set()
    found = await asyncio.gather(*starts, return_exceptions=True)
    assert {type(each) for each in found} == {InvalidArgument}
    assert len(registry.registered) == 1
    registry.wrong = False
    await client.start(order(), "again")
    assert len(registry.registered) == 2


async def test_whoever_gives_up_takes_nobody_else_with_them(client: Client, registry: Registry) -> None:
    registry.open.clear()
    saga = order()
    first, *others = starting(client, saga, 3)
    await registry.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    registry.open.set()
    await asyncio.gather(*others)
    assert len(registry.registered) == 1


async def test_an_orchestrator_that_has_forgotten_a_definition_is_told_once_and_not_by_each_start(
    client: Client, registry: Registry
) -> None:
    """It was restored from a backup, or another one is asked that has a store of its own."""
    saga = order()
    await client.start(saga, 0)
    registry.known.clear()
    registry.refused_at_once = asyncio.Barrier(AT_A_TIME)
    await asyncio.gather(*starting(client, saga))
    assert len(registry.registered) == 2


async def test_a_start_that_is_refused_once_more_says_so(client: Client, registry: Registry) -> None:
    saga = order()

    async def forget(request: object, context: Context) -> object:
        registry.known.clear()
        return await registry.start(orchestrator_pb2.StartSagaRequest(), context)

    registry.orchestrator.on("StartSaga", forget)
    with pytest.raises(NotFound):
        await client.start(saga, 1)
    assert len(registry.registered) == 2


async def test_a_client_that_is_closed_leaves_nobody_waiting_for_a_registration(registry: Registry) -> None:
    registry.open.clear()
    async with Client(registry.orchestrator.address) as client, asyncio.timeout(WAIT_S):
        starts = starting(client, order(), 3)
        await registry.asked.wait()
    async with asyncio.timeout(WAIT_S):
        found = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(each) for each in found] == [AmendsError] * 3
    registry.open.set()


async def test_a_saga_is_written_down_once_however_often_it_is_started(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    write = Saga.definition

    def counting(saga: Saga[Any, Any]) -> definition_pb2.Definition:
        written.append(saga)
        return write(saga)

    monkeypatch.setattr(Saga, "definition", counting)
    saga = order()
    for number in range(3):
        await client.start(saga, number)
    assert written == [saga]


async def test_a_saga_that_is_written_on_is_registered_anew(client: Client, registry: Registry) -> None:
    saga = order()
    await client.start(saga, 1)
    saga.step("shipping/ship")
    await client.start(saga, 2)
    saga.returns({"done": True})
    await client.start(saga, 3)
    assert [request.definition for request in registry.registered[2:]] == [saga.definition()]
    assert [len(request.definition.steps) for request in registry.registered] == [1, 2, 2]


async def test_a_saga_that_is_written_on_while_it_is_registered_stays_the_one_that_was_started(
    client: Client, registry: Registry
) -> None:
    registry.open.clear()
    saga = order()
    (start,) = starting(client, saga, 1)
    await asyncio.sleep(0)  # the start has begun, and nothing is sent yet
    saga.step("shipping/ship")
    registry.open.set()
    await start
    await client.start(order(), 2)
    assert [len(request.definition.steps) for request in registry.registered] == [1]


async def test_definitions_that_are_made_as_a_program_runs_do_not_fill_its_memory(
    client: Client, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_registrations, "KEPT_MAX", 2)
    for number in range(4):
        await client.start(saga_of(number), number)
    assert len(client._registrations._known) == 2
    await client.start(saga_of(3), 4)
    assert len(registry.registered) == 4


def saga_of(number: int) -> Saga[Any, dict[str, object]]:
    saga = order()
    saga.returns({"number": number})
    return saga


async def test_a_client_that_was_closed_before_it_asked_registers_when_it_is_open_again(registry: Registry) -> None:
    client = Client(registry.orchestrator.address)
    async with client:
        start = asyncio.create_task(client.start(order(), 1))
        await asyncio.sleep(0)  # it waits for a registration that has not begun
    with pytest.raises(AmendsError, match="closed"):
        await start
    async with client, asyncio.timeout(WAIT_S):
        await client.start(order(), 2)
    assert len(registry.registered) == 1
