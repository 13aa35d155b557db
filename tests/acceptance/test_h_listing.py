"""Group H, case 57: sagas are found by status, definition, label, time and age, newest first, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest

from amends import SagaStatus, SagaView
from amends.v1 import definition_pb2, orchestrator_pb2
from tests.acceptance.harness import (
    Gate,
    Process,
    Refusal,
    World,
    definition,
    refusal_of,
    refuse,
    step,
    system_error,
)

SHORT = definition("short", "one")
LONG = definition("long", step("one", undo_attempts=2), "two", "three")
COUNT = 6
"""Sagas of each kind."""

KINDS = {
    "completed": SagaStatus.COMPLETED,
    "compensated": SagaStatus.COMPENSATED,
    "stuck": SagaStatus.STUCK,
    "running": SagaStatus.RUNNING,
    "compensating": SagaStatus.COMPENSATING,
}
UNFINISHED = (SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPENSATING, SagaStatus.STUCK)


async def listed(world: World, **where: Any) -> list[str]:
    """The ids of what is found, in the order in which it is."""
    return [view.id async for view in world.client.list(**where)]


async def fill(world: World, gate: Gate) -> list[str]:
    """Have some sagas of each kind; the ids are returned newest first."""
    for i in range(COUNT):
        world.worker.on("two", refuse("NO"), saga=f"compensated-{i}")
        world.worker.on("two", refuse("NO"), saga=f"stuck-{i}")
        world.worker.on("undo one", system_error(), saga=f"stuck-{i}")
        world.worker.on("two", gate.before(), saga=f"running-{i}")
        world.worker.on("two", refuse("NO"), saga=f"compensating-{i}")
        world.worker.on("undo one", gate.before(), saga=f"compensating-{i}")
    await world.client.register(LONG)
    ids: list[str] = []
    for i in range(COUNT):
        for kind in KINDS:
            labels = {"kind": kind, "parity": "even" if i % 2 == 0 else "odd"}
            await world.client.start("long", None, id=f"{kind}-{i}", labels=labels)
            ids.insert(0, f"{kind}-{i}")
    for saga in ids:
        if saga.startswith(("completed", "compensated", "stuck")):
            await world.settled(saga)
    await gate.reached(2 * COUNT)
    return ids


async def test_h57_sagas_are_found_by_what_they_are_newest_first(world: World) -> None:
    gate = Gate()
    ids = await fill(world, gate)
    assert await listed(world) == ids
    for kind, status in KINDS.items():
        of_kind = [saga for saga in ids if saga.startswith(f"{kind}-")]
        assert await listed(world, status=status) == of_kind
        assert await listed(world, labels={"kind": kind}) == of_kind
        assert await listed(world, labels={"kind": kind, "parity": "odd"}) == of_kind[::2]
    assert await listed(world, status=UNFINISHED) == [s for s in ids if not s.startswith(("completed", "compensated"))]
    assert await listed(world, labels={"kind": "stuck"}, status=SagaStatus.RUNNING) == []
    assert await listed(world, labels={"kind": "else"}) == []
    assert await listed(world, definition="long") == ids
    assert await listed(world, definition="lon") == []
    gate.release()
    for saga in ids:
        await world.settled(saga)
    running = [status for status in UNFINISHED if status is not SagaStatus.STUCK]
    assert await listed(world, status=running) == []
    assert await listed(world, status=SagaStatus.STUCK) == [s for s in ids if s.startswith("stuck")]


async def test_h57_a_list_is_the_same_after_a_restart(killable: World, server: Process) -> None:
    gate = Gate()
    ids = await fill(killable, gate)
    stuck = [view async for view in killable.client.list(status=SagaStatus.STUCK)]
    await server.kill()
    gate.release()
    await server.start()
    for saga in ids:
        await killable.settled(saga)
    assert await listed(killable) == ids
    assert [view async for view in killable.client.list(status=SagaStatus.STUCK)] == stuck
    assert await listed(killable, status=SagaStatus.COMPLETED) == [
        s for s in ids if s.startswith(("completed", "runn"))
    ]


async def test_h57_versions_of_a_definition_are_told_apart(world: World) -> None:
    await world.run(SHORT, id="old")
    await world.run(definition("short", "one", "two"), id="new")
    await world.run(definition("other", "one"), id="other")
    assert await listed(world, definition="short") == ["new", "old"]
    assert await listed(world, definition="short", definition_version=1) == ["old"]
    assert await listed(world, definition="short", definition_version=2) == ["new"]
    assert await listed(world, definition="short", definition_version=3) == []


async def test_h57_sagas_are_found_by_time(world: World) -> None:
    views = [await world.run(SHORT, id=f"s{i}") for i in range(4)]
    times = [made(view) for view in views]
    assert times == sorted(set(times))
    assert await listed(world, created_after=times[1]) == ["s3", "s2", "s1"]
    assert await listed(world, created_before=times[2]) == ["s1", "s0"]
    assert await listed(world, created_after=times[1], created_before=times[2]) == ["s1"]
    assert await listed(world, created_after=times[3] + timedelta(microseconds=1)) == []


def made(view: SagaView) -> datetime:
    assert view.create_time is not None
    return view.create_time


async def test_h57_running_longer_than_finds_exactly_those(world: World) -> None:
    gate = Gate()
    for saga in ("older", "younger"):
        world.worker.on("one", gate.before(), saga=saga)
    await world.run(SHORT, id="done")
    older = await world.start(SHORT, id="older")
    age_s = 2.0  # far more than it takes to start the younger one and to list
    await asyncio.sleep(age_s)  # it has to get older
    await world.start(SHORT, id="younger")
    assert await listed(world, running_longer_than=age_s) == ["older"]
    assert await listed(world, running_longer_than=0.000001) == ["younger", "older"]
    assert await listed(world, running_longer_than=3600) == []
    assert await listed(world, running_longer_than=age_s, status=SagaStatus.COMPLETED) == []
    gate.release()
    await world.settled(older)
    await world.settled("younger")
    assert await listed(world, running_longer_than=0.000001) == []


async def pages(
    world: World, page_size: int, filter: orchestrator_pb2.SagaFilter | None = None
) -> Sequence[Sequence[str]]:
    """The ids on each page."""
    found: list[list[str]] = []
    request = orchestrator_pb2.ListSagasRequest(page_size=page_size, filter=filter)
    while True:
        response = await world.wire.orchestrator.ListSagas(request)
        found.append([saga.saga_id for saga in response.sagas])
        request.page_token = response.next_page_token
        if not request.page_token:
            return found


@pytest.mark.parametrize("page_size", [1, 7, 30, 1000])
async def test_h57_pages_hold_each_saga_once(world: World, page_size: int) -> None:
    await world.client.register(SHORT)
    started = await asyncio.gather(
        *(world.client.start("short", None, id=f"s{i:02}", labels={"half": str(i % 2)}) for i in range(60))
    )
    for saga in started:
        await world.settled(saga)
    expected = await listed(world)
    assert len(set(expected)) == 60
    found = await pages(world, page_size)
    assert [saga for page in found for saga in page] == expected
    assert {len(page) for page in found[:-1]} <= {page_size}
    half = orchestrator_pb2.SagaFilter(labels={"half": "1"}, statuses=["SAGA_STATUS_COMPLETED"])
    found = await pages(world, page_size, half)
    assert [saga for page in found for saga in page] == [saga for saga in expected if int(saga[1:]) % 2]


async def test_h57_new_sagas_do_not_shift_the_pages_of_a_list_under_way(world: World) -> None:
    for i in range(6):
        await world.run(SHORT, id=f"s{i}")
    request = orchestrator_pb2.ListSagasRequest(page_size=3)
    first = await world.wire.orchestrator.ListSagas(request)
    await world.run(SHORT, id="late")
    request.page_token = first.next_page_token
    second = await world.wire.orchestrator.ListSagas(request)
    assert [saga.saga_id for page in (first, second) for saga in page.sagas] == [f"s{i}" for i in reversed(range(6))]


async def refused(world: World, request: orchestrator_pb2.ListSagasRequest) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.wire.orchestrator.ListSagas(request)
    return refusal_of(caught.value)


async def test_h57_what_cannot_be_meant_is_refused_by_field(world: World) -> None:
    for i in range(3):
        await world.run(SHORT, id=f"s{i}")
    token = (await world.wire.orchestrator.ListSagas(orchestrator_pb2.ListSagasRequest(page_size=1))).next_page_token
    running = orchestrator_pb2.SagaFilter(statuses=["SAGA_STATUS_RUNNING"])
    for request, field in (
        (orchestrator_pb2.ListSagasRequest(page_token=token[1:]), "page_token"),
        (orchestrator_pb2.ListSagasRequest(page_token=token, filter=running), "page_token"),
        (orchestrator_pb2.ListSagasRequest(page_size=-1), "page_size"),
        (orchestrator_pb2.ListSagasRequest(namespace="no/name"), "namespace"),
        (orchestrator_pb2.ListSagasRequest(filter=orchestrator_pb2.SagaFilter(statuses=[99])), "filter.statuses[0]"),
        (
            orchestrator_pb2.ListSagasRequest(filter=orchestrator_pb2.SagaFilter(definition_version=1)),
            "filter.definition",
        ),
    ):
        refusal = await refused(world, request)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == [field]


async def test_h57_a_saga_is_never_listed_as_running_once_its_end_was_told(world: World) -> None:
    """While many sagas end, whoever is told of an end and then lists finds that saga among the ended ones."""

    async def run(saga: str, made: definition_pb2.Definition) -> None:
        handle = await world.client.start(made.name, None, id=saga, labels={"saga": saga})
        end = await world.settled(handle)
        assert await listed(world, labels={"saga": saga}, status=UNFINISHED) == []
        assert await listed(world, labels={"saga": saga}, status=end.status) == [saga]

    await world.client.register(SHORT)
    await asyncio.gather(*(run(f"s{i}", SHORT) for i in range(60)))
