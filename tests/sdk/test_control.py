"""Control of many sagas by the client, against a scripted orchestrator: what it sends and what it makes of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from amends import BulkResult, Client, Completion, Resolution, SagaStatus, Unavailable
from amends.v1 import operator_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from tests.sdk.scripted import ScriptedOrchestrator, scripted

RESULT = operator_pb2.BulkResult(
    changed_count=2, remaining_count=5, failures=[operator_pb2.BulkFailure(saga_id="a", message="busy")]
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Act = Callable[..., Awaitable[BulkResult]]


@pytest.fixture
async def orchestrator() -> AsyncIterator[ScriptedOrchestrator]:
    async with scripted() as orchestrator:
        yield orchestrator


@pytest.fixture
async def client(orchestrator: ScriptedOrchestrator) -> AsyncIterator[Client]:
    async with Client(orchestrator.address, namespace="shop") as client:
        yield client


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "cancel", "fail"])
async def test_bulk_forms_say_which_sagas_they_are_for(
    orchestrator: ScriptedOrchestrator, client: Client, verb: str
) -> None:
    method = f"{verb.title()}Sagas"
    response: Any = getattr(operator_pb2, f"{method}Response")(result=RESULT)
    orchestrator.returns(method, response)
    act: Act = getattr(client, f"{verb}_all")
    result = await act(
        reason="audit", limit=2, dry_run=True, status=[SagaStatus.STUCK, SagaStatus.RUNNING], definition="order",
        definition_version=3, labels={"a": "b"}, created_after=NOON, created_before=NOON, running_longer_than=60,
    )  # fmt: skip
    assert (result.changed, result.remaining, dict(result.failures)) == (2, 5, {"a": "busy"})
    (request,) = orchestrator.of(getattr(operator_pb2, f"{method}Request"))
    assert (request.bulk.namespace, request.bulk.reason, request.bulk.limit) == ("shop", "audit", 2)
    assert request.bulk.dry_run is True
    expected = orchestrator_pb2.SagaFilter(
        statuses=[saga_pb2.SAGA_STATUS_STUCK, saga_pb2.SAGA_STATUS_RUNNING],
        definition="order",
        definition_version=3,
        labels={"a": "b"},
    )
    expected.created_after.FromDatetime(NOON)
    expected.created_before.FromDatetime(NOON)
    expected.running_longer_than.FromSeconds(60)
    assert request.bulk.filter == expected


async def test_the_bulk_form_of_resolve_says_how_which_step_is_settled(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("ResolveSteps", operator_pb2.ResolveStepsResponse(result=RESULT))
    result = await client.resolve_all(
        "hold", Resolution.SUCCEEDED, output={"a": 1}, reason="seen", limit=3, dry_run=True, definition="order"
    )
    assert (result.changed, result.remaining) == (2, 5)
    (request,) = orchestrator.of(operator_pb2.ResolveStepsRequest)
    assert request == operator_pb2.ResolveStepsRequest(
        bulk=operator_pb2.BulkRequest(
            namespace="shop",
            filter=orchestrator_pb2.SagaFilter(definition="order"),
            limit=3,
            reason="seen",
            dry_run=True,
        ),
        step="hold",
        resolution=saga_pb2.STEP_RESOLUTION_SUCCEEDED,
        output=payload_pb2.Payload(json='{"a":1}'),
    )


async def test_one_saga_is_paused_and_resumed(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    saga = saga_pb2.Saga(saga_id="o", status=saga_pb2.SAGA_STATUS_RUNNING, paused=True)
    orchestrator.returns("PauseSaga", operator_pb2.PauseSagaResponse(saga=saga))
    orchestrator.returns("ResumeSaga", operator_pb2.ResumeSagaResponse(saga=saga_pb2.Saga(saga_id="o")))
    assert (await client.pause("o", reason="audit")).paused is True
    assert (await client.resume("o", reason="done")).paused is False
    assert orchestrator.requests == [
        operator_pb2.PauseSagaRequest(namespace="shop", saga_id="o", reason="audit"),
        operator_pb2.ResumeSagaRequest(namespace="shop", saga_id="o", reason="done"),
    ]


async def test_steps_are_finished_where_their_completion_says(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("CompleteStep", orchestrator_pb2.CompleteStepResponse(saga=saga_pb2.Saga(saga_id="o")))
    completion = Completion(namespace="other", saga_id="o", step="s", token="t")  # noqa: S106 - made up
    await client.complete(completion, {"a": 1})
    await client.refuse(completion, "NO", "No.", data=[1])
    await client.break_off(completion, "BURNT", "The press burnt.", data=[2])
    done, refused, broken = orchestrator.of(orchestrator_pb2.CompleteStepRequest)
    assert (done.namespace, done.saga_id, done.step, done.token) == ("other", "o", "s", "t")
    assert (done.reply.status, done.reply.output.json) == (saga_pb2.REPLY_STATUS_SUCCESS, '{"a":1}')
    assert refused.reply.status == saga_pb2.REPLY_STATUS_ERROR
    assert (refused.reply.error.code, refused.reply.error.message, refused.reply.error.data.json) == (
        "NO",
        "No.",
        "[1]",
    )
    assert broken.reply == saga_pb2.Reply(
        status=saga_pb2.REPLY_STATUS_SYSTEM_ERROR,
        error=payload_pb2.Error(code="BURNT", message="The press burnt.", data=payload_pb2.Payload(json="[2]")),
    )


async def test_work_that_broke_is_said_to_be_so_once(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    """Said again, it would count as another attempt."""
    orchestrator.returns("CompleteStep", grpc.StatusCode.UNAVAILABLE)
    completion = Completion(namespace="n", saga_id="o", step="s", token="t")  # noqa: S106 - made up
    with pytest.raises(Unavailable):
        await client.break_off(completion, "BURNT")
    assert len(orchestrator.requests) == 1


async def test_a_start_says_when_it_begins(orchestrator: ScriptedOrchestrator, client: Client) -> None:
    orchestrator.returns("StartSaga", orchestrator_pb2.StartSagaResponse())
    await client.start("order", None, at=NOON)
    (request,) = orchestrator.of(orchestrator_pb2.StartSagaRequest)
    assert request.start_time.ToDatetime(UTC) == NOON


async def test_definitions_are_read_and_removed_by_name_and_version(
    orchestrator: ScriptedOrchestrator, client: Client
) -> None:
    orchestrator.returns("GetDefinition", orchestrator_pb2.GetDefinitionResponse())
    orchestrator.returns("DeleteDefinition", orchestrator_pb2.DeleteDefinitionResponse())
    await client.definition("order")
    await client.definition("order", 2)
    await client.delete_definition("order", 3)
    assert [(each.definition.name, each.definition.version) for each in orchestrator.requests] == [  # type: ignore[attr-defined]
        ("order", 0), ("order", 2), ("order", 3),
    ]  # fmt: skip
