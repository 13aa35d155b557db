"""Group F, bulk forms and the list of stuck sagas (case 58)."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from amends import EventKind, SagaStatus
from amends.v1 import operator_pb2, orchestrator_pb2, saga_pb2
from amends_server.service import orchestrator as orchestrator_service
from tests.acceptance.harness import World, definition, in_progress, refusal_of, refuse, step, succeed, system_error

STUCK, RUNNING = saga_pb2.SAGA_STATUS_STUCK, saga_pb2.SAGA_STATUS_RUNNING
TWO = definition("two", step("one", undo_attempts=1), "two")
WAITS = definition("waits", "one", "two")


async def bulk(
    world: World, form: str, settled: dict[str, Any] | None = None, **fields: Any
) -> operator_pb2.BulkResult:
    request = getattr(operator_pb2, f"{form}Request")(bulk={"reason": "repaired", **fields}, **(settled or {}))
    result = (await getattr(world.wire.operator, form)(request)).result
    assert isinstance(result, operator_pb2.BulkResult)
    return result


async def stick(world: World, count: int) -> None:
    """Have sagas get stuck, because the compensation of their first step is refused."""
    world.worker.on("two", refuse("NO_STOCK"))
    world.worker.on("undo one", refuse("LEDGER_LOCKED", "closed for the night"))
    for n in range(count):
        assert (await world.run(TWO, id=f"s{n}")).status is SagaStatus.STUCK


async def wait(world: World, count: int) -> None:
    world.worker.on("one", in_progress())
    for n in range(count):
        await world.start(WAITS, id=f"s{n}")
        await world.until(f"s{n}", EventKind.STEP_DEFERRED)


async def test_f58_stuck_sagas_are_listed_with_all_that_a_repair_needs(world: World) -> None:
    await stick(world, 2)
    request = orchestrator_pb2.ListSagasRequest(filter={"statuses": [STUCK]})
    listed = (await world.wire.orchestrator.ListSagas(request)).sagas
    assert [saga.saga_id for saga in listed] == ["s1", "s0"]
    for saga in listed:
        assert (list(saga.stuck.steps), saga.stuck.count, saga.stuck.compensating) == (["one"], 1, True)
        assert saga.stuck.error.code == "LEDGER_LOCKED"
        assert saga.stuck.HasField("start_time")
        assert saga.cause.step.error.code == "NO_STOCK"
        (blocking,) = saga.steps
        assert (blocking.id, blocking.participant, blocking.compensation_attempts) == ("one", "worker", 1)
        assert blocking.compensation_error.message == "closed for the night"


async def test_f58_a_page_ends_where_too_many_sagas_are_stuck_to_be_read_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator_service, "STUCK_ON_PAGE_MAX", 2)
    await stick(world, 3)
    world.worker.on("two", succeed())
    await world.run(TWO, id="well")
    request, pages = orchestrator_pb2.ListSagasRequest(), list[list[str]]()
    while not pages or request.page_token:
        page = await world.wire.orchestrator.ListSagas(request)
        pages.append([saga.saga_id for saga in page.sagas])
        request.page_token = page.next_page_token
    assert pages == [["well", "s2", "s1"], ["s0"]]


async def test_f58_retries_of_all_that_is_stuck(world: World) -> None:
    await stick(world, 3)
    world.worker.on("undo one", succeed())
    dry = await bulk(world, "RetrySagas", dry_run=True, limit=2)
    assert (dry.changed_count, dry.remaining_count) == (2, 1)
    assert (await world.client.get("s0")).status is SagaStatus.STUCK
    first = await bulk(world, "RetrySagas", limit=2)
    assert (first.changed_count, first.remaining_count, list(first.failures)) == (2, 1, [])
    for saga in ("s1", "s2"):
        assert (await world.settled(saga)).status is SagaStatus.COMPENSATED
    last = await bulk(world, "RetrySagas")
    assert (last.changed_count, last.remaining_count) == (1, 0)
    assert (await world.settled("s0")).status is SagaStatus.COMPENSATED
    retried = await world.until("s0", EventKind.SAGA_RETRIED)
    assert retried.reason == "repaired"
    assert retried.principal


async def test_f58_giving_up_takes_only_what_is_stuck_and_matches(world: World) -> None:
    await stick(world, 1)
    await wait(world, 0)
    other = definition("other", "one")
    await world.start(other, id="runs")
    await world.until("runs", EventKind.STEP_DEFERRED)
    assert (await bulk(world, "FailSagas", filter={"definition": "other"})).changed_count == 0
    assert (await bulk(world, "FailSagas", filter={"statuses": [RUNNING]})).changed_count == 0
    assert (await bulk(world, "FailSagas", filter={"definition": "two"})).changed_count == 1
    assert (await world.client.get("s0")).status is SagaStatus.FAILED
    assert (await world.client.get("runs")).status is SagaStatus.RUNNING


async def test_f58_steps_are_settled_in_all_sagas_that_wait_for_them(world: World) -> None:
    await stick(world, 3)
    world.worker.on("other", system_error())
    other = definition("other", step("other", kind="PIVOT", attempts=1))
    assert (await world.run(other, id="elsewhere")).status is SagaStatus.STUCK
    undone = {"step": "one", "resolution": saga_pb2.STEP_RESOLUTION_COMPENSATED}
    dry = await bulk(world, "ResolveSteps", undone, dry_run=True, limit=2)
    assert (dry.changed_count, dry.remaining_count) == (2, 1)
    assert (await world.client.get("s2")).status is SagaStatus.STUCK
    first = await bulk(world, "ResolveSteps", undone, limit=2)
    assert (first.changed_count, first.remaining_count, list(first.failures)) == (2, 1, [])
    last = await bulk(world, "ResolveSteps", undone)
    assert (last.changed_count, last.remaining_count, list(last.failures)) == (1, 0, [])
    for n in range(3):
        saga = await world.settled(f"s{n}")
        assert saga.status is SagaStatus.COMPENSATED
        assert saga.message.steps[0].resolution.reason == "repaired"
    forward = {
        "step": "other",
        "resolution": saga_pb2.STEP_RESOLUTION_SUCCEEDED,
        "output": {"json": '{"n":1}'},
    }
    assert (await bulk(world, "ResolveSteps", forward)).changed_count == 1
    assert (await world.settled("elsewhere")).message.output.json == '{"other":{"n":1}}'


@pytest.mark.parametrize(
    ("settled", "field"),
    [
        ({"resolution": saga_pb2.STEP_RESOLUTION_SKIPPED}, "step"),
        ({"step": "one"}, "resolution"),
        ({"step": "one", "resolution": saga_pb2.STEP_RESOLUTION_SKIPPED, "output": {"json": "1"}}, "output"),
    ],
)
async def test_f_settlements_that_cannot_be_meant_are_refused(
    world: World, settled: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bulk(world, "ResolveSteps", settled)
    assert list(refusal_of(caught.value).violations) == [field]


async def test_f_all_are_paused_resumed_and_cancelled(world: World) -> None:
    await wait(world, 3)
    assert (await bulk(world, "PauseSagas", limit=2)).remaining_count == 1
    assert (await bulk(world, "PauseSagas")).changed_count == 1
    assert (await bulk(world, "PauseSagas")).changed_count == 0
    assert (await world.client.get("s1")).message.paused
    assert (await bulk(world, "ResumeSagas")).changed_count == 3
    assert (await bulk(world, "CancelSagas")).changed_count == 3
    for n in range(3):
        assert (await world.settled(f"s{n}")).status is SagaStatus.COMPENSATED


async def pass_pivot(world: World, *ids: str) -> None:
    """Have sagas wait at their pivots, so that they cannot be cancelled."""
    world.worker.on("pay", in_progress())
    for saga in ids:
        await world.start(definition("pivots", step("pay", kind="PIVOT")), id=saga)
        await world.until(saga, EventKind.STEP_DEFERRED)


async def test_f_what_cannot_be_changed_is_named_and_does_not_count(world: World) -> None:
    await wait(world, 1)
    await pass_pivot(world, "pivot")
    dry = await bulk(world, "CancelSagas", limit=1, dry_run=True)
    assert (await world.client.get("s0")).status is SagaStatus.RUNNING
    result = await bulk(world, "CancelSagas", limit=1)
    assert result == dry
    assert (result.changed_count, result.remaining_count) == (1, 0)
    (failure,) = result.failures
    assert failure.saga_id == "pivot"
    assert "pivot" in failure.message


async def test_f_a_dry_run_counts_what_would_be_changed(world: World) -> None:
    await wait(world, 2)
    dry = await bulk(world, "RetrySagas", filter={"statuses": [RUNNING]}, dry_run=True)
    assert dry.changed_count == 2  # both wait, and would be asked again
    world.worker.on("undo one", refuse("LEDGER_LOCKED"))
    assert (await bulk(world, "CancelSagas")).changed_count == 2
    for n in range(2):
        assert (await world.settled(f"s{n}")).status is SagaStatus.STUCK
    going_back = await bulk(world, "CancelSagas", dry_run=True)
    assert (going_back.changed_count, going_back.remaining_count, list(going_back.failures)) == (0, 0, [])


async def test_f_many_that_cannot_be_changed_do_not_hide_older_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amends_server.service.bulk.BULK_FAILURES_MAX", 2)
    await wait(world, 1)
    await pass_pivot(world, "p1", "p2", "p3")
    result = await bulk(world, "CancelSagas", limit=1)
    assert (result.changed_count, result.remaining_count, len(result.failures)) == (1, 0, 2)
    assert (await world.settled("s0")).status is SagaStatus.COMPENSATED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": ""}, "bulk.reason"),
        ({"limit": -1}, "bulk.limit"),
        ({"filter": {"statuses": [99]}}, "bulk.filter.statuses[0]"),
        ({"namespace": "no space"}, "bulk.namespace"),
    ],
)
async def test_f_bulk_requests_that_cannot_be_meant_are_refused(
    world: World, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bulk(world, "CancelSagas", **fields)
    assert list(refusal_of(caught.value).violations) == [field]
