"""The registered participants: where they listen, what they can do, and the sending of calls to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import grpc
import structlog

from amends.v1 import participant_pb2
from amends_server.clock import Clock
from amends_server.config import ID_LENGTH_MAX
from amends_server.engine.checks.problem import Problem, Severity, error, warning
from amends_server.engine.commands import Unknown
from amends_server.engine.definition import Definition, Step
from amends_server.engine.due import CallOrder
from amends_server.engine.payload import Error
from amends_server.engine.policy import Time
from amends_server.errors import AddressNotAllowed, ParticipantFixed, ParticipantNotFound
from amends_server.store.protocol import Store, StoredParticipant, StoreError
from amends_server.tasks import Tasks
from amends_server.transport.attempts import Obstacle, Told, nothing
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.links import Transport
from amends_server.transport.requests import Origin

ADOPT_INTERVAL_S = 1.0
"""How long an orchestrator may call a participant at an address that was changed at another one."""

DESCRIBE_TIMEOUT_S = 2.0
"""How long a participant may take to describe itself while somebody waits for a registration."""

DESCRIPTION_BYTES_MAX = 1 << 20
"""Of all actions of a participant with their schemas: they are kept in memory, and in the store."""

ACTIONS_MAX = 1_000
"""Actions of a participant: each definition that names it looks through them."""

NAMED_MAX = 12
"""How many actions are named to who asks for one that is not there; a definition can ask two thousand times."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A participant. `actions` are those it described, None if it never did. `fixed`: from the server's settings."""

    endpoint: Endpoint
    actions: tuple[participant_pb2.ActionDescription, ...] | None
    update_time: Time
    fixed: bool


class Participants:
    """Finds participants by name. Those of the settings come before those of the store."""

    def __init__(
        self, *, store: Store, transport: Transport, clock: Clock, fixed: list[Endpoint], allows: Callable[[str], bool]
    ) -> None:
        self._store = store
        self._transport = transport
        self._clock = clock
        self._fixed = fixed
        self._allows = allows
        self._known: dict[str, Registered] = {}
        self._changing = asyncio.Lock()
        self._tasks = Tasks()

    async def open(self) -> None:
        """Read what is registered.

        :raises AddressNotAllowed: for an address of the settings that the allow-list does not have.
        """
        for endpoint in self._fixed:
            self._check_address(endpoint.address)
            self._known[endpoint.name] = Registered(
                endpoint=endpoint, actions=None, update_time=self._clock.now(), fixed=True
            )
        await self.adopt()

    async def close(self) -> None:
        """Let go of attempts for participants that are still looked for; they are lost."""
        await self._tasks.close()

    async def adopt(self) -> None:
        """Take over what other orchestrators have registered or removed at the same store."""
        async with self._changing:
            stored = {each.name: each for each in await self._store.list_participants()}
            for name in [name for name, known in self._known.items() if not known.fixed and name not in stored]:
                self._forget(name)
            for name, each in stored.items():
                known = self._known.get(name)
                if known is None or (not known.fixed and known.update_time != each.update_time):
                    self._known[name] = _read_registered(each)

    async def adopt_for_ever(self) -> None:
        """Do so again and again until cancelled."""
        while True:
            await asyncio.sleep(ADOPT_INTERVAL_S)
            await self._try_to_adopt()

    async def _try_to_adopt(self) -> None:
        """Go on with what is known where it cannot be read: calls wait for that, and sagas for them."""
        try:
            await self.adopt()
        except Exception as error:
            text = str(error) if isinstance(error, StoreError) else type(error).__name__  # others may quote data (I46)
            log.warning("participants_not_read", error=text)

    def send(self, name: str, order: CallOrder, origin: Origin, told: Told, in_its_way: Obstacle = nothing) -> None:
        """Send an attempt to the participant of that name. If there is none, the outcome is told as unknown.

        `in_its_way` is asked just before it is sent; what it answers is told instead.
        """
        known = self._known.get(name)
        if known is None:
            self._tasks.hold(self._find_and_send(name, order, origin, told, in_its_way))
        else:
            self._send(known, order, origin, told, in_its_way)

    async def _find_and_send(
        self, name: str, order: CallOrder, origin: Origin, told: Told, in_its_way: Obstacle
    ) -> None:
        """Send an attempt to a participant that another orchestrator may have registered just now."""
        await self._try_to_adopt()
        known = self._known.get(name)
        if known is None:
            told(_is_unknown(name))
        else:
            self._send(known, order, origin, told, in_its_way)

    def _send(self, known: Registered, order: CallOrder, origin: Origin, told: Told, in_its_way: Obstacle) -> None:
        try:
            self._transport.send(known.endpoint, order, origin, told, in_its_way)
        except AddressNotAllowed as refusal:  # the list may be another than when it was registered (I45)
            verdict = Unknown(Error("ADDRESS_NOT_ALLOWED", str(refusal), known.endpoint.name))
            asyncio.get_running_loop().call_soon(told, verdict)

    async def all(self) -> list[Registered]:
        """Return all participants by name."""
        await self.adopt()
        return [self._known[name] for name in sorted(self._known)]

    async def put(self, endpoint: Endpoint) -> Registered:
        """Register a participant or change it, and ask it what it can do; that it does not answer yet is no error.

        :raises AddressNotAllowed: if the allow-list does not have the address.
        :raises ParticipantFixed: if the name is one of the settings.
        """
        known = self._known.get(endpoint.name)
        if known is not None and known.fixed:
            raise ParticipantFixed(endpoint.name)
        self._check_address(endpoint.address)
        actions = await self._describe(endpoint)
        async with self._changing:
            known = self._known.get(endpoint.name)
            if actions is None and known is not None and known.endpoint.address == endpoint.address:
                actions = known.actions
            registered = Registered(endpoint=endpoint, actions=actions, update_time=self._clock.now(), fixed=False)
            await self._keep(registered)
        return registered

    async def delete(self, name: str) -> None:
        """Remove a participant. Calls in flight to it finish; those that were not sent end as if it had been gone.

        :raises ParticipantNotFound: if there is none.
        :raises ParticipantFixed: if it is one of the settings.
        """
        await self.adopt()
        async with self._changing:
            known = self._known.get(name)
            if known is None:
                raise ParticipantNotFound(name)
            if known.fixed:
                raise ParticipantFixed(name)
            await self._store.delete_participant(name)
            self._forget(name)

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._transport.forget(name, _is_unknown(name))

    async def check(self, definition: Definition) -> list[Problem]:
        """Return what is wrong with a definition's participants and actions, asking those that may have changed."""
        if any(step.participant not in self._known for step in definition.steps):
            await self.adopt()
        wanted = {step.participant for step in definition.steps if self._lacks(step)}
        await asyncio.gather(*(self._refresh(name) for name in sorted(wanted)))
        return [problem for i, step in enumerate(definition.steps) for problem in self._check_step(f"steps[{i}]", step)]

    def _check_step(self, at: str, step: Step) -> Iterator[Problem]:
        known = self._known.get(step.participant)
        if known is None:
            message = f"There is no participant `{step.participant}`: register it first with PutParticipant."
            yield error(f"{at}.participant", "PARTICIPANT_UNKNOWN", message)
        elif known.actions is None:
            message = f"`{step.participant}` does not describe itself now, so its action was not checked."
            yield Problem(Severity.WARNING, f"{at}.action", "ACTION_UNCHECKED", message)
        else:
            yield from _check_action(at, step, known.actions)
            yield from _advise_action(at, step, known.actions)

    def _lacks(self, step: Step) -> bool:
        known = self._known.get(step.participant)
        return known is not None and (known.actions is None or any(_check_action("", step, known.actions)))

    async def _refresh(self, name: str) -> None:
        known = self._known[name]
        actions = await self._describe(known.endpoint)
        async with self._changing:
            if actions is not None and self._known.get(name) is known:  # else somebody has changed it meanwhile
                await self._keep(replace(known, actions=actions, update_time=self._clock.now()))

    async def _describe(self, endpoint: Endpoint) -> tuple[participant_pb2.ActionDescription, ...] | None:
        try:
            described = await self._transport.describe(endpoint, DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            log.info("participant_not_described", participant=endpoint.name, code=failure.code().name)
            return None
        except AddressNotAllowed:  # nobody is asked who may not be dialled (I45)
            log.warning("participant_not_allowed", participant=endpoint.name)
            return None
        if described is None or described.ByteSize() > DESCRIPTION_BYTES_MAX or len(described.actions) > ACTIONS_MAX:
            log.warning("description_unfit", participant=endpoint.name)
            return None
        return tuple(described.actions)

    async def _keep(self, registered: Registered) -> None:
        if not registered.fixed:
            await self._store.put_participant(
                StoredParticipant(
                    name=registered.endpoint.name,
                    address=registered.endpoint.address,
                    concurrency_max=registered.endpoint.concurrency_max,
                    actions=_write_actions(registered.actions),
                    update_time=registered.update_time,
                )
            )
        self._known[registered.endpoint.name] = registered

    def _check_address(self, address: str) -> None:
        if not self._allows(address):
            raise AddressNotAllowed(address)


def _is_unknown(name: str) -> Unknown:
    return Unknown(Error("PARTICIPANT_UNKNOWN", "There is no such participant: register it.", name))


def _check_action(at: str, step: Step, actions: tuple[participant_pb2.ActionDescription, ...]) -> Iterator[Problem]:
    action = next((action for action in actions if action.name == step.action), None)
    if action is None:
        names = ", ".join(f"`{action.name[:ID_LENGTH_MAX]}`" for action in actions[:NAMED_MAX]) or "none"
        message = f"`{step.participant}` has no action `{step.action}`; it has {names}."
        yield error(f"{at}.action", "ACTION_UNKNOWN", message)
    elif step.owes_compensation and not action.has_compensation:
        message = f"`{step.action}` of `{step.participant}` has no compensation: say that it is not needed, or add one."
        yield error(f"{at}.compensation", "COMPENSATION_UNKNOWN", message)


def _advise_action(at: str, step: Step, actions: tuple[participant_pb2.ActionDescription, ...]) -> Iterator[Problem]:
    undone = next((action.has_compensation for action in actions if action.name == step.action), False)
    if undone and step.compensation is not None and step.compensation.not_needed:
        message = f"`{step.action}` of `{step.participant}` has a compensation that will not be called: is that meant?"
        yield warning(f"{at}.compensation.not_needed", "COMPENSATION_UNUSED", message)


def _read_registered(stored: StoredParticipant) -> Registered:
    return Registered(
        endpoint=Endpoint(stored.name, stored.address, stored.concurrency_max),
        actions=_read_actions(stored.actions),
        update_time=stored.update_time,
        fixed=False,
    )


def _read_actions(stored: bytes | None) -> tuple[participant_pb2.ActionDescription, ...] | None:
    return None if stored is None else tuple(participant_pb2.DescribeResponse.FromString(stored).actions)


def _write_actions(actions: tuple[participant_pb2.ActionDescription, ...] | None) -> bytes | None:
    return None if actions is None else participant_pb2.DescribeResponse(actions=actions).SerializeToString()
