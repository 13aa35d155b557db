"""An orchestrator but for its sockets: the parts that run sagas and answer calls, put together in one place.

So whoever runs them on another network, store and clock, as the simulation does, runs what the server runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from amends_server.catalogue import Catalogue
from amends_server.clock import Clock
from amends_server.hub import Hub
from amends_server.journal import Journal
from amends_server.participants import Participants
from amends_server.runner.domain import Domain
from amends_server.runner.keeper import Keeper
from amends_server.runner.late import LateReplies
from amends_server.runner.reader import Reader
from amends_server.runner.runner import Runner
from amends_server.service.bulk import Bulk
from amends_server.service.definitions import Definitions
from amends_server.service.feed import Feed
from amends_server.service.operator import OperatorService
from amends_server.service.orchestrator import OrchestratorService
from amends_server.service.peers import Peers
from amends_server.service.replicas import Replicas
from amends_server.service.starting import Starting
from amends_server.service.steering import Steering
from amends_server.service.usage import Usage
from amends_server.store.leases import Ownership
from amends_server.store.protocol import Store
from amends_server.tokens import Tokens
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.links import Transport
from amends_server.transport.session import LateTold


class Parts:
    """What runs sagas. `transport` makes the way to participants, and gets whom to tell late answers.

    In their order: `open`, `run` until cancelled, then `hold`, `settle`, `part` and `close`.
    """

    def __init__(
        self,
        *,
        store: Store,
        transport: Callable[[LateTold], Transport],
        clock: Clock,
        ownership: Ownership,
        secret: bytes,
        fixed: list[Endpoint],
        allows: Callable[[str], bool],
        active_max: int,
        payload_bytes_max: int,
        peers: Peers | None = None,
    ) -> None:
        catalogue = Catalogue(store, payload_bytes_max, sole=ownership.partitions is None)
        self._hub, self._journal = Hub(), Journal(store)
        reader, tokens = Reader(store, catalogue), Tokens(secret)
        self._ownership = ownership
        self.gained = 0
        self._transport = transport(lambda call, verdict: self._late.take(call, verdict))
        self.participants = Participants(
            store=store, transport=self._transport, clock=clock, fixed=fixed, allows=allows
        )
        self.runner = Runner(
            journal=self._journal,
            reader=reader,
            send=self.participants.send,
            hub=self._hub,
            clock=clock,
            domain=Domain(ownership, clock),
            active_max=active_max,
            tokens=tokens,
        )
        self._late = LateReplies(self.runner.command)
        self._keeper = Keeper(store, ownership, self.runner, clock)
        definitions = Definitions(catalogue, self.participants, clock)
        self.orchestrator = OrchestratorService(
            store=store,
            definitions=definitions,
            starting=Starting(definitions, self.runner, clock, payload_bytes_max, peers),
            runner=self.runner,
            feed=Feed(store, reader, self.runner, self._hub),
            hub=self._hub,
            clock=clock,
            tokens=tokens,
            payload_bytes_max=payload_bytes_max,
        )
        self.operator = OperatorService(
            runner=self.runner,
            bulk=Bulk(store, Steering(self.runner, peers), clock),
            participants=self.participants,
            replicas=Replicas(store, ownership, clock),
            usage=Usage(store, catalogue),
            payload_bytes_max=payload_bytes_max,
        )

    @property
    def owned(self) -> int:
        """How many partitions are owned; a store that has one owner is one."""
        partitions = self._ownership.partitions
        return 1 if partitions is None else len(partitions)

    @property
    def taken_over(self) -> int:
        """Unfinished sagas that were found in partitions that were gained."""
        return self._keeper.found

    async def open(self) -> None:
        """Read what is registered, and be ready to write."""
        await self.participants.open()
        self._journal.start()

    def take_over(self, gained: Collection[int] | None) -> None:
        """Run the sagas of the partitions that were gained, None for all there are, and of those lost none."""
        self.gained += 1 if gained is None else len(gained)
        self.runner.adapt()
        self.orchestrator.tell_share()
        if gained is None or gained:
            self._keeper.gain(gained)

    async def run(self) -> None:
        """Recover what others left, and keep sagas going until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._keeper.run(), name="keeper")
            if self._ownership.partitions is not None:
                loops.create_task(self.participants.adopt_for_ever(), name="participants")

    def hold(self) -> None:
        """Take nothing new from now on."""
        self.orchestrator.hold()
        self.runner.domain.hold()
        self.orchestrator.tell_share()

    async def settle(self, drain_s: float) -> None:
        """Let calls in flight end, and record them. Meanwhile whoever else there is gets the sagas that are at rest.

        Calls that last longer are lost, and asked again by who goes on with their sagas.
        """
        self._ownership.retire()
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self.runner.settle_calls()

    def part(self) -> None:
        """Tell those who watch or wait to go elsewhere."""
        self._hub.close()
        self.orchestrator.end_sessions()

    async def close(self) -> None:
        """Let go of everything, and write what has gathered."""
        await self.participants.close()
        await self._transport.close()
        await self._late.close()
        await self._journal.close()
