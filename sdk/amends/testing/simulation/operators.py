"""Operators: they look at sagas now and then, steer them, and tell the truth about what they have mended by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from amends.testing.simulation.clients import UNANSWERED, SagaSpoilt
from amends.testing.simulation.process import CallFailed
from amends.v1 import operator_pb2, orchestrator_pb2, payload_pb2, saga_pb2
from amends_server.engine.state import SagaStatus
from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    from amends.testing.simulation.world import World

BULK = ("PauseSagas", "ResumeSagas", "RetrySagas", "CancelSagas", "FailSagas")


class Operator:
    """Looks at sagas now and then, and does what one may do with them; what they say is true."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._caller = world.caller

    async def meddle(self) -> None:
        """While faults go on: anything, to any saga."""
        world, count = self._world, 0
        while True:
            count += 1
            await world.sleep(world.dice.number("operator", 0.5, 4.0))
            if world.judge.sagas and world.dice.strikes("operator", str(count), 0.4):
                key = world.dice.choose("operator's saga", sorted(world.judge.sagas, key=lambda key: key.saga_id))
                await self._meddle_with(key)
            if world.dice.strikes("bulk", str(count), 0.1):
                await self._steer_all(world.dice.choose(f"bulk {count}", BULK))

    async def _steer_all(self, method: str) -> None:
        """Steer whatever there is at once, a few at a time."""
        world = self._world
        make = getattr(operator_pb2, f"{method}Request")
        request = make(bulk=operator_pb2.BulkRequest(reason="simulated", limit=2))
        try:
            response = await self._caller.call("operator", method, request)
        except CallFailed as failed:
            world.judge.must(failed.code in UNANSWERED, f"{method} was answered {failed}")
            return
        world.story.tell("operator", f"is told that {method} has changed {response.result.changed_count}")
        if response.result.changed_count:
            world.story.see("sagas steered in bulk")

    async def _meddle_with(self, key: SagaKey) -> None:
        kinds = ("Retry", "Retry", "Resolve", "Resolve", "Pause", "Resume", "Fail", "Cancel")
        match self._world.dice.choose(f"operator does {key.saga_id}", kinds):
            case "Retry":
                await self._do(key, "RetrySaga", operator_pb2.RetrySagaRequest)
            case "Resolve":
                await self._resolve(key)
            case "Pause":
                if await self._do(key, "PauseSaga", operator_pb2.PauseSagaRequest):
                    await self._world.sleep(self._world.dice.number("pause", 0.1, 5.0))
                    if await self._do(key, "ResumeSaga", operator_pb2.ResumeSagaRequest):
                        self._world.story.see("paused and resumed")
            case "Resume":
                await self._do(key, "ResumeSaga", operator_pb2.ResumeSagaRequest)
            case "Cancel":
                if await self._do(key, "CancelSaga", orchestrator_pb2.CancelSagaRequest):
                    self._world.judge.cancel_accepted(key)
            case _:
                await self._do(key, "FailSaga", operator_pb2.FailSagaRequest)

    async def set_right(self) -> None:
        """When faults are over: resume what is paused, and help what is stuck until it ends."""
        world, tries = self._world, dict[SagaKey, int]()
        while unfinished := world.judge.unfinished():
            for key in sorted(unfinished, key=lambda key: key.saga_id):
                known = world.judge.sagas[key]
                assert known.state is not None
                if known.state.paused:
                    await self._do(key, "ResumeSaga", operator_pb2.ResumeSagaRequest)
                elif known.state.status is SagaStatus.STUCK:
                    tries[key] = tries.get(key, 0) + 1
                    if tries[key] % 2:
                        await self._do(key, "RetrySaga", operator_pb2.RetrySagaRequest)
                    else:
                        await self._resolve(key)
            await world.sleep(1.0)

    async def _resolve(self, key: SagaKey) -> None:
        observer = self._world.judge.sagas[key].observer
        wanting = [step for step, seen in observer.steps.items() if seen.wants_help] or list(observer.steps)
        step = self._world.dice.choose(f"resolved step {key.saga_id}", wanting)
        choices: tuple[saga_pb2.StepResolution.ValueType, ...]
        if observer.back:
            choices = (saga_pb2.STEP_RESOLUTION_COMPENSATED, saga_pb2.STEP_RESOLUTION_SKIPPED)
        else:
            choices = (
                saga_pb2.STEP_RESOLUTION_SUCCEEDED,
                saga_pb2.STEP_RESOLUTION_SKIPPED,
                saga_pb2.STEP_RESOLUTION_COMPENSATED,
            )
        resolution = self._world.dice.choose(f"resolution {key.saga_id}", choices)
        succeeded = resolution == saga_pb2.STEP_RESOLUTION_SUCCEEDED
        output = payload_pb2.Payload(json=self._world.subject.give(step, "")) if succeeded else None
        request = operator_pb2.ResolveStepRequest
        await self._do(key, "ResolveStep", request, step=step, resolution=resolution, output=output)

    async def _do(self, key: SagaKey, method: str, make: Any, **more: Any) -> bool:
        """Make the call; True if it was accepted."""
        world = self._world
        request = make(saga_id=key.saga_id, reason="simulated", **more)
        try:
            response = await self._caller.call("operator", method, request)
        except SagaSpoilt:
            return False
        except CallFailed as failed:
            if failed.code not in UNANSWERED:
                world.story.tell("operator", f"is refused {method} of {key.saga_id}: {failed.reason}")
                self._check_refusal(key, failed)
            return False
        world.story.tell("operator", f"is told that {method} of {key.saga_id} is done")
        world.judge.shown(key, response.saga.sequence)
        return True

    def _check_refusal(self, key: SagaKey, failed: CallFailed) -> None:
        judge = self._world.judge
        judge.must(failed.code is grpc.StatusCode.FAILED_PRECONDITION, f"an operator was answered {failed}")
        judge.rejected(key, failed.reason)
