"""What is measured: a participant whose actions answer at once, and sagas over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amends import Participant, Refused, Saga

PAYLOAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Load:
    """The payload of everything: a text that fills it."""

    text: str


participant = Participant("bench")


@participant.action
async def reserve(request: Load) -> Load:
    return request


@participant.action
async def charge(request: Load) -> Load:
    return request


@participant.action
async def ship(request: Load) -> Load:
    return request


@participant.action
async def refuse(request: Load) -> Load:
    raise Refused("REFUSED", "This action always says no.")


async def undo(request: Load, done: Load | None) -> None:
    return None


for each in (reserve, charge, ship, refuse):
    each.compensation(undo)


@dataclass(frozen=True, slots=True)
class Workload:
    """Sagas of one kind. `payload_bytes` is the size of the input, and so of each output."""

    name: str
    define: Callable[[str], Saga[Load, dict[str, object]]]
    payload_bytes: int = PAYLOAD_BYTES

    def definition(self) -> Saga[Load, dict[str, object]]:
        """The saga."""
        return self.define(self.name)

    def input(self) -> Load:
        """An input of the right size as JSON."""
        return Load("p" * (self.payload_bytes - len('{"text":""}')))


def _three_steps(name: str) -> Saga[Load, dict[str, object]]:
    saga: Saga[Load, dict[str, object]] = Saga(name, input=Load)
    for action in (reserve, charge, ship):
        saga.step(action)
    return saga


def _refused(name: str) -> Saga[Load, dict[str, object]]:
    saga: Saga[Load, dict[str, object]] = Saga(name, input=Load)
    for action in (reserve, charge, refuse):
        saga.step(action)
    return saga


def _ten_parallel(name: str) -> Saga[Load, dict[str, object]]:
    saga: Saga[Load, dict[str, object]] = Saga(name, input=Load)
    with saga.parallel():
        for number in range(10):
            saga.step(reserve, id=f"step_{number}")
    return saga


WORKLOADS = (
    Workload("three_steps", _three_steps),
    Workload("refused", _refused),
    Workload("ten_parallel", _ten_parallel),
    Workload("three_steps_1k", _three_steps, 1 << 10),
    Workload("three_steps_64k", _three_steps, 64 << 10),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}
