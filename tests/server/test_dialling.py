"""Whom the server dials: only who is allowed, through no proxy, and where a participant is now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from amends import Client
from amends_server.clock import SystemClock
from amends_server.engine.commands import Unknown, Verdict
from amends_server.errors import AddressNotAllowed
from amends_server.participants import Participants
from amends_server.store.memory import MemoryStore
from amends_server.store.protocol import StoredParticipant, Unavailable
from amends_server.transport.attempts import LateCall
from amends_server.transport.endpoint import Endpoint
from amends_server.transport.late import LATE_MAX, LATE_S, LateCalls
from amends_server.transport.links import Transport
from tests.acceptance.harness import InProcess, Ledger, ScriptedParticipant, World, definition, step

WAIT_S = 30.0


class Listener:
    """Counts connections, and answers nothing."""

    def __init__(self) -> None:
        self.address = ""
        self.connections = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncGenerator[Listener]:
        listener = cls()

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            listener.connections += 1
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        listener.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield listener


class Hesitant(ScriptedParticipant):
    """Describes itself when the test says so; `asked` is set when somebody wants to know."""

    def __init__(self, name: str, ledger: Ledger, actions: tuple[str, ...]) -> None:
        super().__init__(name, ledger, actions)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def _describe(self, _: bytes, context: Any) -> bytes:
        self.asked.set()
        await self.go_on.wait()
        return await super()._describe(_, context)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport(SystemClock(), 1 << 20, allows=lambda address: address.startswith("127."), late=lambda *_: None)
    yield made
    await made.close()


async def test_i45_nobody_is_asked_what_he_can_do_who_may_not_be_dialled_any_more(tmp_path: Path) -> None:
    async with Listener.opened() as listener:
        server = InProcess(tmp_path / "amends.db")
        await server.start()
        async with Client(server.address) as client:
            await client.put_participant("old", listener.address)
        await server.stop()
        before = listener.connections
        server = InProcess(tmp_path / "amends.db", participant_allow=("10.0.0.1:1",))
        await server.start()
        async with Client(server.address) as client:
            await client.check(definition("d", step("one", participant="old")))
        await server.stop()
        assert listener.connections == before


async def test_i45_the_transport_itself_dials_no_address_that_is_not_allowed(transport: Transport) -> None:
    with pytest.raises(AddressNotAllowed):
        await transport.describe(Endpoint("p", "localhost:1", 1), 1)


async def test_calls_go_through_no_proxy(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Listener.opened() as proxy, Listener.opened() as participant:
        use_proxy(monkeypatch, proxy)
        with pytest.raises(grpc.aio.AioRpcError):
            await transport.describe(Endpoint("p", participant.address, 1), WAIT_S)
        assert proxy.connections == 0
        assert participant.connections > 0


async def test_a_client_reaches_an_orchestrator_on_its_machine_without_the_proxy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Listener.opened() as proxy:
        use_proxy(monkeypatch, proxy)
        async with Client(world.orchestrator.address) as client:
            assert [participant.name async for participant in client.participants()] == ["worker"]
        assert proxy.connections == 0


def use_proxy(monkeypatch: pytest.MonkeyPatch, proxy: Listener) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    for name in ("grpc_proxy", "https_proxy", "no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_participant_is_moved_while_sagas_run(world: World) -> None:
    await world.client.register(definition("d", step("one")))
    new = Hesitant("worker", world.ledger, ("one",))
    await new.start()
    try:
        moving = asyncio.create_task(world.client.put_participant("worker", new.address))
        await asyncio.wait_for(new.asked.wait(), WAIT_S)
        for i in range(5):
            saga = await world.client.start("d", None, id=f"s{i}")
            assert (await world.settled(saga)).status == "COMPLETED"
        new.go_on.set()
        assert (await asyncio.wait_for(moving, WAIT_S)).described
        await world.worker.close()
        assert (await world.settled(await world.client.start("d", None, id="moved"))).status == "COMPLETED"
    finally:
        await new.close()


async def test_a_participant_that_is_deleted_while_it_describes_itself_stays_deleted(world: World) -> None:
    worker = Hesitant("other", world.ledger, ("x",))
    worker.go_on.set()
    await world.add_participant(worker)
    worker.asked.clear()
    worker.go_on.clear()
    try:
        checking = asyncio.create_task(world.client.check(definition("d", step("one", participant="other"))))
        await asyncio.wait_for(worker.asked.wait(), WAIT_S)
        await world.client.delete_participant("other")
        worker.go_on.set()
        await asyncio.wait_for(checking, WAIT_S)
        assert [participant.name async for participant in world.client.participants()] == ["worker"]
    finally:
        worker.go_on.set()
        await worker.close()


async def test_a_participant_that_is_moved_while_the_old_one_describes_itself_stays_moved(world: World) -> None:
    old, new = (Hesitant("other", world.ledger, ("x",)) for _ in range(2))
    old.go_on.set()
    new.go_on.set()
    await world.add_participant(old)
    old.asked.clear()
    old.go_on.clear()
    await new.start()
    try:
        checking = asyncio.create_task(world.client.check(definition("d", step("one", participant="other"))))
        await asyncio.wait_for(old.asked.wait(), WAIT_S)
        await world.client.put_participant("other", new.address)
        old.go_on.set()
        await asyncio.wait_for(checking, WAIT_S)
        addresses = {p.name: p.address async for p in world.client.participants()}
        assert addresses["other"] == new.address
    finally:
        old.go_on.set()
        await old.close()
        await new.close()


async def test_a_move_that_cannot_be_stored_moves_nothing(transport: Transport) -> None:
    class Broken(MemoryStore):
        down = False

        async def put_participant(self, participant: StoredParticipant) -> None:
            if self.down:
                raise Unavailable("down")
            await super().put_participant(participant)

    store = Broken()
    await store.open()
    participants = Participants(store=store, transport=transport, clock=SystemClock(), fixed=[], allows=lambda _: True)
    async with Listener.opened() as first, Listener.opened() as second:
        await participants.put(Endpoint("p", first.address, 1))
        store.down = True
        with pytest.raises(Unavailable):
            await participants.put(Endpoint("p", second.address, 1))
        assert [known.endpoint.address for known in await participants.all()] == [first.address]


async def test_i39_a_call_for_whom_nobody_can_be_looked_up_is_told_all_the_same(transport: Transport) -> None:
    class Corrupt(MemoryStore):
        async def list_participants(self) -> list[StoredParticipant]:
            raise ValueError("what is stored cannot be read")

    participants = Participants(
        store=Corrupt(), transport=transport, clock=SystemClock(), fixed=[], allows=lambda _: True
    )
    told: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    nothing: Any = None
    participants.send("p", nothing, nothing, told.set_result)
    assert isinstance(await asyncio.wait_for(told, 30), Unknown)


async def test_what_cannot_be_read_once_does_not_keep_others_participants_from_being_found(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mended(MemoryStore):
        reads = 0

        async def list_participants(self) -> list[StoredParticipant]:
            self.reads += 1
            if self.reads == 1:
                raise ValueError("what is stored cannot be read")
            if self.reads == 3:
                read_on.set()
            return await super().list_participants()

    store, read_on = Mended(), asyncio.Event()
    await store.open()
    await store.put_participant(
        StoredParticipant(
            name="p", address="127.0.0.1:1", concurrency_max=1, actions=None, update_time=SystemClock().now()
        )
    )
    participants = Participants(store=store, transport=transport, clock=SystemClock(), fixed=[], allows=lambda _: True)
    monkeypatch.setattr("amends_server.participants.ADOPT_INTERVAL_S", 0.0)
    adopting = asyncio.create_task(participants.adopt_for_ever())
    await asyncio.wait_for(read_on.wait(), 30)
    adopting.cancel()
    assert list(participants._known) == ["p"]


def test_of_late_calls_only_names_are_kept_so_many_and_so_long() -> None:
    late = LateCalls()
    for i in range(LATE_MAX + 5):
        late.add(i, LateCall("default", f"s{i}", "a", False, 1), now_s=i / LATE_MAX)
    assert len(late) == LATE_MAX
    assert late.pop(4) is None
    assert late.pop(5) == LateCall("default", "s5", "a", False, 1)
    assert late.pop(5) is None
    late.add(-1, LateCall("default", "new", "a", True, 2), now_s=LATE_S + 2)
    assert len(late) == 1
