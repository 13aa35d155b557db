"""Group A: definitions and starts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from amends import AlreadyExists, InvalidArgument, NotFound, SagaStatus, StepStatus, encode
from amends.v1 import definition_pb2, operator_pb2, orchestrator_pb2, saga_pb2
from tests.acceptance.harness import (
    OVER_BOTH_LINKS,
    THREE,
    Gate,
    InProcess,
    ScriptedParticipant,
    World,
    definition,
    refusal_of,
    refuse,
    status,
    step,
    succeed,
)
from tests.acceptance.harness_definitions import seconds


@OVER_BOTH_LINKS
async def test_a01_three_steps_run_in_order_to_completed(world: World) -> None:
    for n, name in enumerate(("one", "two", "three"), start=1):
        world.worker.on(name, succeed({"n": n}))
    handle = await world.start(THREE, {"order": 7})
    assert await handle.result() == {"one": {"n": 1}, "two": {"n": 2}, "three": {"n": 3}}
    saga = await handle.status()
    assert world.ledger.names() == ["one", "two", "three"]
    assert world.ledger.effects("s") == ["one", "two", "three"]
    assert saga.status is SagaStatus.COMPLETED
    assert [each.status for each in saga.steps] == [StepStatus.SUCCEEDED] * 3
    assert [each.attempts for each in saga.steps] == [1, 1, 1]
    times = [time for each in saga.steps for time in (each.start_time, each.end_time)]
    assert all(times)
    assert times == sorted(times, key=lambda time: time.timestamp() if time else 0)
    assert saga.input.read(object) == {"order": 7}
    assert [each.output.read(object) for each in saga.steps] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert saga.end_time
    assert saga.cause is None


async def test_a02_sequential_steps_do_not_overlap(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before())
    handle = await world.start(definition("two_steps", "one", "two"))
    await gate.reached()
    assert world.ledger.lines() == ["start one"]
    assert [each.status for each in (await handle.status()).steps] == [StepStatus.RUNNING, StepStatus.PENDING]
    gate.release()
    await handle.result()
    assert world.ledger.lines() == ["start one", "end one", "start two", "end two"]


async def test_a03_input_and_outputs_reach_later_steps_and_fixed_parameters_stay(world: World) -> None:
    world.worker.on("price", succeed({"amount": 30, "mode": "cheap", "sku": "other"}))
    world.worker.on("charge", succeed({"id": "P-1"}))
    flow = definition(
        "flow",
        step("price", input={"sku": "${input.sku}", "mode": "fixed"}),
        step("charge", input={"amount": "${steps.price.output.amount}", "mode": "express", "whole": "${input}"}),
        step("ship", input=["${steps.charge.output}", "${steps.price.output.amount}", "${saga.id}", "literal"]),
        output={"paid": "${steps.charge.output.id}", "amount": "${steps.price.output.amount}", "currency": "EUR"},
    )
    given = {"sku": "tea", "mode": "slow", "currency": "GBP"}
    saga = await world.run(flow, given)
    sent = {record.name: json.loads(record.execute_request.input.json) for record in world.ledger.calls()}
    assert sent == {
        "price": {"sku": "tea", "mode": "fixed"},
        "charge": {"amount": 30, "mode": "express", "whole": given},
        "ship": [{"id": "P-1"}, 30, "s", "literal"],
    }
    assert saga.output.read(object) == {"paid": "P-1", "amount": 30, "currency": "EUR"}
    assert {each.id: each.input.read(object) for each in saga.steps} == sent


async def test_a03_a_step_without_a_template_gets_the_input_of_the_saga_as_it_came(world: World) -> None:
    given = '{"b": 1.0,  "a": [1, 2]}'
    await world.client.register(definition("as_it_is", "one"))
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", wait=True)
    request.definition.name = "as_it_is"
    request.input.json = given
    await world.wire.orchestrator.StartSaga(request)
    assert [record.execute_request.input.json for record in world.ledger.calls()] == [given]


BAD_DEFINITIONS: dict[str, tuple[definition_pb2.Definition, str]] = {
    "no steps": (definition("bad"), "steps"),
    "no name": (definition("", "one"), "name"),
    "long name": (definition("x" * 129, "one"), "name"),
    "empty step": (definition("bad", step("", action="one")), "steps[0].id"),
    "long step": (definition("bad", step("x" * 65)), "steps[0].id"),
    "duplicate step": (definition("bad", "one", "one"), "steps[1].id"),
    "no action": (definition("bad", "one", step("two", action="")), "steps[1].action"),
    "no participant": (definition("bad", step("one", participant="")), "steps[0].participant"),
    "no compensation": (definition("bad", step("one", undo=None)), "steps[0].compensation"),
    "unknown participant": (definition("bad", step("one", participant="nobody")), "steps[0].participant"),
    "unknown action": (definition("bad", step("one", participant="skilled")), "steps[0].action"),
    "unknown predecessor": (definition("bad", step("one", after=["two"])), "steps[0].after[0]"),
    "cycle": (definition("bad", step("one", after=["two"]), step("two", after=["one"])), "steps[0].after"),
    "compensatable after pivot": (definition("bad", step("one", kind="PIVOT"), step("two")), "steps[1].kind"),
    "half an expression": (definition("bad", step("one", input={"a": "${input."})), "steps[0].input_template"),
    "no such root": (definition("bad", step("one", input={"a": "${output}"})), "steps[0].input_template"),
    "unknown step in it": (definition("bad", step("one", input="${steps.x.output}")), "steps[0].input_template"),
    "later step in it": (
        definition("bad", step("one", input="${steps.two.output}"), "two"),
        "steps[0].input_template",
    ),
    "bad output": (definition("bad", "one", output="${steps.x.output}"), "output_template"),
    "bad arguments": (definition("bad", step("one", arguments="${no}")), "steps[0].compensation.template"),
    "negative attempts": (definition("bad", step("one", attempts=-2)), "steps[0].retry.attempts_max"),
    "no interval": (definition("bad", step("one", interval_s=0)), "steps[0].retry.interval"),
    "negative interval": (definition("bad", step("one", interval_s=-1)), "steps[0].retry.interval"),
    "no longest interval": (definition("bad", step("one", interval_max_s=0)), "steps[0].retry.interval_max"),
    "low factor": (definition("bad", step("one", factor=0.5)), "steps[0].retry.factor"),
    "factor that is none": (definition("bad", step("one", factor=float("nan"))), "steps[0].retry.factor"),
    "negative jitter": (definition("bad", step("one", jitter=-0.1)), "steps[0].retry.jitter"),
    "high jitter": (definition("bad", step("one", jitter=1.1)), "steps[0].retry.jitter"),
    "no timeout": (definition("bad", step("one", timeout_s=0)), "steps[0].timeout"),
    "negative timeout": (definition("bad", step("one", timeout_s=-1)), "steps[0].timeout"),
    "no step deadline": (definition("bad", step("one", deadline_s=0)), "steps[0].deadline"),
    "no deadline": (definition("bad", "one", deadline_s=0), "deadline"),
    "negative deadline": (definition("bad", "one", deadline_s=-1), "deadline"),
    "no undo timeout": (definition("bad", step("one", undo_timeout_s=0)), "steps[0].compensation.timeout"),
    "negative undo attempts": (
        definition("bad", step("one", undo_attempts=-2)),
        "steps[0].compensation.retry.attempts_max",
    ),
}


@pytest.mark.parametrize("what", BAD_DEFINITIONS)
async def test_a04_bad_definitions_are_refused_before_anything_runs(world: World, what: str) -> None:
    bad, field = BAD_DEFINITIONS[what]
    skilled = ScriptedParticipant("skilled", world.ledger, actions=("other",))
    await world.add_participant(skilled)
    try:
        checked = await world.client.check(bad)
        with pytest.raises(InvalidArgument) as registered:
            await world.client.register(bad)
        with pytest.raises(grpc.aio.AioRpcError) as started:
            await world.wire.orchestrator.StartSaga(
                orchestrator_pb2.StartSagaRequest(saga_id="s", inline_definition=bad)
            )
    finally:
        await skilled.close()
    assert field in [each.field for each in checked.diagnostics if each.severity == definition_pb2.SEVERITY_ERROR]
    assert f"definition.{field}" in [violation.field for violation in registered.value.violations]
    refusal = refusal_of(started.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "DEFINITION_INVALID"
    assert f"inline_definition.{field}" in refusal.violations
    with pytest.raises(NotFound):
        await world.client.get("s")
    assert [each async for each in world.client.definitions()] == []
    assert [each async for each in world.client.list()] == []
    assert world.ledger.calls() == []


@pytest.mark.parametrize(("steps", "shown"), [(200, 200), (201, 0)])
async def test_i42_plans_are_shown_for_small_definitions(world: World, steps: int, shown: int) -> None:
    longest = "s" * 60
    message = definition("plans", *(step(f"{longest}{n}", after=(), action="one") for n in range(steps)))
    response = await world.wire.orchestrator.CheckDefinition(
        orchestrator_pb2.CheckDefinitionRequest(definition=message)
    )
    assert len(response.plans) == shown
    assert ("PLANS_LEFT_OUT" in {each.code for each in response.diagnostics}) == (shown == 0)


async def test_i19_an_inline_start_is_repeated_after_its_participant_was_removed(world: World) -> None:
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", inline_definition=definition("gone", "one"), wait=True)
    assert (await world.wire.orchestrator.StartSaga(request)).created
    await world.wire.operator.DeleteParticipant(operator_pb2.DeleteParticipantRequest(name="worker"))
    again = await world.wire.orchestrator.StartSaga(request)
    assert (again.created, again.saga.status) == (False, saga_pb2.SAGA_STATUS_COMPLETED)
    request.inline_definition.description = "other content"
    with pytest.raises(grpc.aio.AioRpcError) as other:
        await world.wire.orchestrator.StartSaga(request)
    assert refusal_of(other.value).reason == "SAGA_ALREADY_EXISTS"
    assert [each.version async for each in world.client.definitions()] == [1]


async def test_i20_a_start_survives_that_its_definition_is_removed_all_the_time(world: World) -> None:
    inline = definition("removed", "one")
    registered = await world.wire.orchestrator.RegisterDefinition(
        orchestrator_pb2.RegisterDefinitionRequest(definition=inline)
    )
    reference = orchestrator_pb2.DefinitionRef(digest=registered.definition.digest)
    stop = asyncio.Event()

    async def remove() -> None:
        request = orchestrator_pb2.DeleteDefinitionRequest(definition=reference)
        while not stop.is_set():
            try:
                await world.wire.orchestrator.DeleteDefinition(request)
            except grpc.aio.AioRpcError as error:
                assert refusal_of(error).reason in ("DEFINITION_IN_USE", "DEFINITION_NOT_FOUND")  # noqa: PT017

    removing = asyncio.create_task(remove())
    response = None
    while response is None:
        start = orchestrator_pb2.StartSagaRequest(saga_id="s", inline_definition=inline, wait=True)
        try:
            response = await world.wire.orchestrator.StartSaga(start)
        except grpc.aio.AioRpcError as error:  # whoever is unlucky twice is told to try again
            assert refusal_of(error).reason == "CONCURRENT_CHANGE"  # noqa: PT017
    stop.set()
    await removing
    assert response.saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert [each.version async for each in world.client.definitions()] == [response.saga.definition_version]


async def test_a05_a_new_version_leaves_running_sagas_on_the_old_one(tmp_path: Path) -> None:
    orchestrator = InProcess(tmp_path / "amends.db", drain_s=0)
    async with World.opened(tmp_path, orchestrator) as world:
        gate = Gate()
        world.worker.on("one", gate.before())
        world.worker.on("last", refuse())
        old = await world.start(definition("changing", "one", "last"), id="old")
        await gate.reached()
        new = definition("changing", "one", "other")
        registered = await world.client.register(new)
        assert (registered.definition.version, registered.created) == (2, True)
        await orchestrator.restart()
        young = await world.start(new, id="young")
        gate.release()
        views = await world.settled(old), await world.settled(young)
        assert [view.definition_version for view in views] == [1, 2]
        assert [view.status for view in views] == [SagaStatus.COMPENSATED, SagaStatus.COMPLETED]
        assert list(dict.fromkeys(world.ledger.names("old"))) == ["one", "last", "undo one"]
        assert world.ledger.names("young") == ["one", "other"]


async def test_a05_a_version_in_use_cannot_be_removed(world: World) -> None:
    used, unused = definition("used", "one"), definition("used", "one", "two")
    await world.run(used)
    await world.client.register(unused)
    request = orchestrator_pb2.DeleteDefinitionRequest()
    request.definition.name, request.definition.version = "used", 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.wire.orchestrator.DeleteDefinition(request)
    assert refusal_of(refused.value).code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal_of(refused.value).reason == "DEFINITION_IN_USE"
    request.definition.version = 2
    await world.wire.orchestrator.DeleteDefinition(request)
    assert [each.version async for each in world.client.definitions("used")] == [1]


async def test_a06_an_exported_definition_is_registered_again_as_the_same(tmp_path: Path) -> None:
    original = definition(
        "exported",
        step("one", input={"a": "${input.a}"}, timeout_s=2, attempts=5, backoff="LINEAR", jitter=0.5),
        step("two", after=[], undo=False, deadline_s=30),
        step("three", after=["one", "two"], kind="PIVOT", participant="worker"),
        step("four", kind="RETRIABLE", attempts=-1),
        output={"b": "${steps.two.output}"},
        deadline_s=60,
        on_compensation_failure="CONTINUE",
    )
    exports: list[definition_pb2.Definition] = []
    calls: list[list[str]] = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        async with World.opened(tmp_path / place) as world:
            world.worker.on("three", refuse())
            given = definition_pb2.Definition.FromString(exports[0].SerializeToString()) if exports else original
            await world.client.register(given)
            again = await world.client.register(given)
            assert (again.created, again.definition.version) == (False, 1)
            reference = orchestrator_pb2.DefinitionRef(digest=again.definition.digest)
            stored = await world.wire.orchestrator.GetDefinition(
                orchestrator_pb2.GetDefinitionRequest(definition=reference)
            )
            exports.append(stored.definition)
            saga = await world.run(given, {"a": 1})
            assert saga.status is SagaStatus.COMPENSATED
            calls.append(sorted(world.ledger.names()))
    for export in exports:
        export.ClearField("create_time")
    assert exports[0] == exports[1]
    assert calls[0] == calls[1] == sorted(["one", "two", "three", "undo one"])


async def test_a07_the_same_start_again_is_the_same_saga(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before())
    await world.client.register(THREE)
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", input=encode({"a": 1}), labels={"x": "y"})
    request.definition.name = THREE.name
    starts = await asyncio.gather(*(world.wire.orchestrator.StartSaga(request) for _ in range(20)))
    assert sorted(start.created for start in starts) == [False] * 19 + [True]
    assert {start.saga.create_time.ToNanoseconds() for start in starts} == {starts[0].saga.create_time.ToNanoseconds()}
    gate.release()
    await world.settled("s")
    after = await world.wire.orchestrator.StartSaga(request)
    assert (after.created, after.saga.saga_id) == (False, "s")
    await world.orchestrator.restart()
    again = await world.wire.orchestrator.StartSaga(request, wait_for_ready=True)
    assert again.created is False
    assert again.saga == after.saga
    assert world.ledger.names() == ["one", "two", "three"]
    assert [saga.id async for saga in world.client.list()] == ["s"]


OTHER_CONTENT: dict[str, Callable[[orchestrator_pb2.StartSagaRequest], object]] = {
    "input": lambda request: request.input.CopyFrom(encode({"a": 2})),
    "no input": lambda request: request.ClearField("input"),
    "labels": lambda request: request.labels.update({"x": "z"}),
    "deadline": lambda request: request.deadline.CopyFrom(seconds(99) or request.deadline),
    "definition": lambda request: request.definition.CopyFrom(orchestrator_pb2.DefinitionRef(name="another")),
}


@pytest.mark.parametrize("what", OTHER_CONTENT)
async def test_a07_a_start_of_other_content_is_refused(world: World, what: str) -> None:
    gate = Gate()
    world.worker.on("one", gate.before())
    await world.client.register(THREE)
    await world.client.register(definition("another", "one"))
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", input=encode({"a": 1}), labels={"x": "y"})
    request.definition.name = THREE.name
    await world.wire.orchestrator.StartSaga(request)
    before = await world.client.get("s")
    OTHER_CONTENT[what](request)
    with pytest.raises(grpc.aio.AioRpcError) as while_it_runs:
        await world.wire.orchestrator.StartSaga(request)
    assert (await world.client.get("s")).message.input == before.message.input
    gate.release()
    ended = await world.settled("s")
    with pytest.raises(grpc.aio.AioRpcError) as after_its_end:
        await world.wire.orchestrator.StartSaga(request)
    for refused in (while_it_runs, after_its_end):
        assert refusal_of(refused.value).code is grpc.StatusCode.ALREADY_EXISTS
        assert refusal_of(refused.value).reason == "SAGA_ALREADY_EXISTS"
    assert (await world.client.get("s")).message == ended.message
    assert world.ledger.names() == ["one", "two", "three"]


async def test_a07_the_sdk_says_that_the_id_is_taken(world: World) -> None:
    await world.run(THREE, {"a": 1})
    again = await world.start(THREE, {"a": 1})
    assert again.id == "s"
    with pytest.raises(AlreadyExists):
        await world.start(THREE, {"a": 2})


async def test_a09_a_start_returns_at_once_with_a_saga_that_is_visible(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before())
    await world.client.register(THREE)
    request = orchestrator_pb2.StartSagaRequest(saga_id="s")
    request.definition.name = THREE.name
    started = await world.wire.orchestrator.StartSaga(request)
    assert not world.ledger.effects()
    shown = await world.client.get("s")
    listed = [each async for each in world.client.list()]
    assert [started.saga.saga_id, shown.id, *(each.id for each in listed)] == ["s", "s", "s"]
    assert SagaStatus.of(started.saga.status) in (SagaStatus.PENDING, SagaStatus.RUNNING)
    assert shown.status is SagaStatus.RUNNING
    assert [each.status for each in listed] == [SagaStatus.RUNNING]
    await gate.reached()
    gate.release()
    assert (await world.settled("s")).status is SagaStatus.COMPLETED


async def test_a09_a_start_waits_for_the_end_if_asked(world: World) -> None:
    gate = Gate()
    world.worker.on("one", gate.before())
    await world.client.register(THREE)
    request = orchestrator_pb2.StartSagaRequest(saga_id="s", wait=True)
    request.definition.name = THREE.name
    start = asyncio.ensure_future(world.wire.orchestrator.StartSaga(request))
    await gate.reached()
    assert not start.done()
    gate.release()
    assert SagaStatus.of((await start).saga.status) is SagaStatus.COMPLETED
    world.worker.on("one", status(grpc.StatusCode.UNIMPLEMENTED))
    world.worker.on("undo one", refuse())
    request.saga_id = "stuck"
    assert SagaStatus.of((await world.wire.orchestrator.StartSaga(request)).saga.status) is SagaStatus.STUCK


async def test_a10_fifty_steps_in_order(world: World) -> None:
    names = [f"s{n:02}" for n in range(50)]
    saga = await world.run(definition("long", *names))
    assert saga.status is SagaStatus.COMPLETED
    assert world.ledger.names() == names
    assert world.ledger.lines() == [line for name in names for line in (f"start {name}", f"end {name}")]


@OVER_BOTH_LINKS
async def test_a10_fifty_steps_in_parallel(world: World) -> None:
    gate, names = Gate(), [f"s{n:02}" for n in range(50)]
    for name in names:
        world.worker.on(name, gate.before(succeed(name)))
    wide = definition("wide", *(step(name, after=[]) for name in names), step("join", after=names))
    handle = await world.start(wide)
    await gate.reached(50)
    gate.release()
    saga = await world.settled(handle)
    assert saga.status is SagaStatus.COMPLETED
    assert sorted(world.ledger.names()[:50]) == names
    assert world.ledger.names()[50:] == ["join"]
    assert [each.output.read(object) for each in saga.steps[:50]] == names
