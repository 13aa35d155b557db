"""Calls that are passed on to another orchestrator: which one is asked, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from structlog.testing import capture_logs

from amends.v1 import operator_pb2, operator_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc, saga_pb2
from amends_server import app
from amends_server.config import load_settings
from amends_server.errors import NotOwned, Overloaded, OwnerLost, SagaAlreadyExists, ShuttingDown
from amends_server.service import peers as peers_module
from amends_server.service.peers import CANCEL, COMPLETE, FORWARDED, LOOK_S, START, Here, Peers, operator_method
from amends_server.status import PeerRefused, abort, refusals
from amends_server.store.leases import Sole
from amends_server.store.protocol import SagaKey
from tests.acceptance.harness import refusal_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

ONE = SagaKey("default", "one")
WAIT_S = 30
FAIL = operator_method("FailSaga")


class Elsewhere(Sole):
    """Owned at another address, until it is said to be somewhere else."""

    def __init__(self) -> None:
        super().__init__(0)
        self.owner = ""
        self.epoch = 0

    def epoch_of(self, key: SagaKey) -> int:
        return self.epoch

    def address_of(self, key: SagaKey) -> str:
        return self.owner


class Hanging(grpc.GenericRpcHandler):
    """Takes every call, and answers none."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def hang(request: bytes, context: object) -> bytes:
            self.asked.set()
            await asyncio.Event().wait()
            return b""

        return grpc.unary_unary_rpc_method_handler(hang)


class Answering(grpc.GenericRpcHandler):
    """Answers each call as if it was a start."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, context: object) -> bytes:
            return orchestrator_pb2.StartSagaResponse(created=True).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)


class Refusing(grpc.GenericRpcHandler):
    """Refuses each call, for these reasons in turn, the last one for ever."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def refuse(request: bytes, context: Context) -> bytes:
            await abort(context, self._errors.pop(0) if len(self._errors) > 1 else self._errors[0])

        return grpc.unary_unary_rpc_method_handler(refuse)


class Ending(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """An orchestrator that is about to end."""

    @refusals
    async def CancelSaga(
        self, request: orchestrator_pb2.CancelSagaRequest, context: Context
    ) -> orchestrator_pb2.CancelSagaResponse:
        raise ShuttingDown


@dataclass(frozen=True, slots=True)
class Asked:
    """An orchestrator that asks the owner of a saga, which hangs."""

    ownership: Elsewhere
    hanging: Hanging
    peers: Peers
    stop: Callable[[], Awaitable[None]]

    async def ask(self, method: str, request: object) -> asyncio.Task[bytes | Here]:
        """Ask the owner, and return when it was asked."""
        asking = asyncio.create_task(self.peers.ask(method, ONE, request, "somebody", None))
        await asyncio.wait_for(self.hanging.asked.wait(), WAIT_S)
        return asking


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    ownership, hanging = Elsewhere(), Hanging()
    async with AsyncExitStack() as stack:
        ownership.owner = await stack.enter_async_context(serving(hanging))
        it = Asked(ownership, hanging, Peers(ownership, [], b"secret"), stack.aclose)
        yield it
        await it.peers.close()


@asynccontextmanager
async def serving(handler: grpc.GenericRpcHandler) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_i37_whoever_waits_for_an_owner_that_hangs_is_answered_by_the_next_one(asked: Asked) -> None:
    asking = await asked.ask(START, orchestrator_pb2.StartSagaRequest(saga_id="one"))
    async with serving(Answering()) as address:
        asked.ownership.owner = address
        answer = await asyncio.wait_for(asking, WAIT_S)
    assert isinstance(answer, bytes)
    assert orchestrator_pb2.StartSagaResponse.FromString(answer).created


async def test_i37_whoever_waits_for_an_owner_that_hangs_answers_itself_once_it_owns_the_saga(asked: Asked) -> None:
    asking = await asked.ask(START, orchestrator_pb2.StartSagaRequest(saga_id="one"))
    asked.ownership.owner, asked.ownership.epoch = "", 2
    assert await asyncio.wait_for(asking, WAIT_S) == Here(ONE, in_doubt=True)


def completion(status: saga_pb2.ReplyStatus.ValueType) -> orchestrator_pb2.CompleteStepRequest:
    return orchestrator_pb2.CompleteStepRequest(saga_id="one", reply=saga_pb2.Reply(status=status))


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (CANCEL, orchestrator_pb2.CancelSagaRequest(saga_id="one")),
        (operator_method("PauseSaga"), operator_pb2.PauseSagaRequest(saga_id="one")),
        (operator_method("ResumeSaga"), operator_pb2.ResumeSagaRequest(saga_id="one")),
        (COMPLETE, completion(saga_pb2.REPLY_STATUS_SUCCESS)),
        (COMPLETE, completion(saga_pb2.REPLY_STATUS_ERROR)),
    ],
)
async def test_i37_what_may_be_asked_twice_is_asked_of_the_next_owner_of_one_that_hangs(
    asked: Asked, method: str, request_: object
) -> None:
    asking = await asked.ask(method, request_)
    async with serving(Answering()) as address:
        asked.ownership.owner = address
        assert await asyncio.wait_for(asking, WAIT_S)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (FAIL, operator_pb2.FailSagaRequest(saga_id="one")),
        (COMPLETE, completion(saga_pb2.REPLY_STATUS_SYSTEM_ERROR)),
    ],
)
async def test_a_command_that_may_have_been_carried_out_is_given_to_nobody_else(
    asked: Asked, method: str, request_: object
) -> None:
    asking = await asked.ask(method, request_)
    asked.ownership.owner, asked.ownership.epoch = "", 2
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asking, 3 * LOOK_S)


async def test_a_command_whose_answer_was_lost_is_not_told_as_one_that_was_not_begun(asked: Asked) -> None:
    asking = await asked.ask(FAIL, operator_pb2.FailSagaRequest(saga_id="one"))
    await asked.stop()
    with pytest.raises(OwnerLost):
        await asyncio.wait_for(asking, WAIT_S)


async def test_a_call_that_may_have_been_done_is_not_told_as_not_begun_when_time_is_up(asked: Asked) -> None:
    (await asked.ask(START, orchestrator_pb2.StartSagaRequest(saga_id="one"))).cancel()  # there is a connection now
    asked.hanging.asked.clear()
    cancel = orchestrator_pb2.CancelSagaRequest(saga_id="one")
    asking = asyncio.create_task(asked.peers.ask(CANCEL, ONE, cancel, "somebody", None, 0))
    await asyncio.wait_for(asked.hanging.asked.wait(), WAIT_S)
    await asked.stop()
    with pytest.raises(OwnerLost):
        await asyncio.wait_for(asking, WAIT_S)


async def test_a_start_is_not_begun_by_an_owner_that_cannot_be_reached(asked: Asked) -> None:
    await asked.stop()
    start = orchestrator_pb2.StartSagaRequest(saga_id="one")
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(NotOwned):
                await asked.peers.ask(START, ONE, start, "somebody", None, 0)
    (line,) = logs
    assert (line["event"], line["address"]) == ("owner_not_reached", asked.ownership.owner)


async def test_an_owner_that_names_an_address_of_ours_is_not_asked(asked: Asked) -> None:
    """As when each orchestrator listens at the same address of its own machine, and says that it is reached there."""
    asked.ownership.address = asked.ownership.owner
    with capture_logs() as logs, pytest.raises(NotOwned):
        await asked.peers.ask(START, ONE, orchestrator_pb2.StartSagaRequest(saga_id="one"), "somebody", None, 0)
    assert logs[0]["event"] == "owner_not_reached"
    assert not asked.hanging.asked.is_set()


async def test_a_command_waits_for_an_owner_that_is_not_there_and_is_not_begun(asked: Asked) -> None:
    await asked.stop()
    with pytest.raises(NotOwned):
        await asked.peers.ask(FAIL, ONE, operator_pb2.FailSagaRequest(saga_id="one"), "somebody", None, 3 * LOOK_S)
    assert not asked.hanging.asked.is_set()


async def test_a_command_that_the_owner_says_may_have_been_carried_out_is_asked_for_once(asked: Asked) -> None:
    async with serving(Refusing(OwnerLost("default", "one"))) as address:
        asked.ownership.owner = address
        with pytest.raises(PeerRefused):
            await asked.peers.ask(FAIL, ONE, operator_pb2.FailSagaRequest(saga_id="one"), "somebody", None, WAIT_S)
    assert asked.peers.forwarded["FailSaga", "refused"] == 1


async def test_a_call_that_was_passed_on_is_passed_on_no_further(asked: Asked) -> None:
    """Two that take each other for the owner would pass it to and fro."""
    server = grpc.aio.server(interceptors=(asked.peers,))
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Ending(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    passed_on = ((FORWARDED, "1"), asked.peers._callers.name("somebody", CANCEL, ONE))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        cancel = orchestrator.CancelSaga(orchestrator_pb2.CancelSagaRequest(saga_id="one"), metadata=passed_on)
        assert await asyncio.wait_for(reason_for(cancel), WAIT_S) == "SHUTTING_DOWN"
    assert not asked.hanging.asked.is_set()
    await server.stop(None)


@pytest.mark.parametrize("refusal", [Overloaded("starts", 1), SagaAlreadyExists("default", "one")])
async def test_i37_what_the_next_owner_refuses_says_nothing_of_what_the_first_one_did(
    asked: Asked, refusal: Exception
) -> None:
    asking = await asked.ask(START, orchestrator_pb2.StartSagaRequest(saga_id="one"))
    async with serving(Refusing(refusal)) as address:
        asked.ownership.owner = address
        with pytest.raises(OwnerLost):
            await asyncio.wait_for(asking, WAIT_S)
        start = orchestrator_pb2.StartSagaRequest(saga_id="one")
        with pytest.raises(PeerRefused):
            await asked.peers.ask(START, ONE, start, "somebody", None)


@pytest.mark.parametrize(("wait", "told"), [(True, OwnerLost), (False, NotOwned)])
async def test_i37_an_owner_that_ends_while_it_waits_for_the_end_of_a_saga_has_begun_it(
    asked: Asked, wait: bool, told: type[Exception]
) -> None:
    taken = SagaAlreadyExists("default", "one")
    async with serving(Refusing(taken, ShuttingDown(), NotOwned("default", "one"))) as address:
        asked.ownership.owner = address
        start = orchestrator_pb2.StartSagaRequest(saga_id="one", wait=wait)
        with pytest.raises(PeerRefused):  # there is a connection now
            await asked.peers.ask(START, ONE, start, "somebody", None)
        with pytest.raises(told):
            await asked.peers.ask(START, ONE, start, "somebody", None, 3 * LOOK_S)


async def test_i37_who_owns_a_saga_now_does_not_say_that_a_call_was_not_begun_which_another_one_may_have_done(
    asked: Asked,
) -> None:
    asked.ownership.epoch = 1
    server = grpc.aio.server(interceptors=(asked.peers,))
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Ending(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    cancel = orchestrator_pb2.CancelSagaRequest(saga_id="one")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        assert await reason_for(orchestrator.CancelSaga(cancel)) == "SHUTTING_DOWN"
        asked.ownership.epoch = 0
        asking = asyncio.ensure_future(reason_for(orchestrator.CancelSaga(cancel)))
        await asyncio.wait_for(asked.hanging.asked.wait(), WAIT_S)
        asked.ownership.owner, asked.ownership.epoch = "", 2
        assert await asyncio.wait_for(asking, WAIT_S) == "OWNER_LOST"
    await server.stop(None)


async def reason_for(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refusal_of(refused.value).reason


async def test_i42_calls_that_are_passed_on_hold_no_more_bytes_than_may_be(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for an owner that hangs, and what is counted is let go of."""
    monkeypatch.setattr(peers_module, "PASSED_ON_BYTES_MAX", 1_000)
    peers = Peers(asked.ownership, [], b"secret")
    server = grpc.aio.server(interceptors=(peers,))
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(Ending(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    large = orchestrator_pb2.CancelSagaRequest(saga_id="one", reason="x" * 600)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        owner = asked.ownership.owner
        for _ in range(2):
            asked.ownership.owner, asked.ownership.epoch = owner, 0
            waiting = [asyncio.ensure_future(reason_for(orchestrator.CancelSaga(large))) for _ in range(5)]
            done, left = await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 3:
                more, left = await asyncio.wait(left, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert {task.result() for task in done} == {"OVERLOADED"}
            asked.ownership.owner, asked.ownership.epoch = "", 1
            assert {await asyncio.wait_for(task, WAIT_S) for task in left} == {"OWNER_LOST"}
    await peers.close()
    await server.stop(None)


async def test_who_waits_for_an_owner_at_one_that_ends_is_told_that_nothing_was_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that what may not be repeated can be asked for elsewhere."""
    monkeypatch.setattr(app, "STOP_S", WAIT_S)  # a busy machine may stand still for as long as it is
    asked = asyncio.Event()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(app.serving(load_settings(listen="127.0.0.1:0", store="memory:")))
        nobody = Elsewhere()
        monkeypatch.setattr(nobody, "address_of", lambda key: asked.set() or "")
        monkeypatch.setattr(server._peers, "_ownership", nobody)
        async with grpc.aio.insecure_channel(server.address) as channel:
            operator = operator_pb2_grpc.OperatorServiceStub(channel)
            retry = operator_pb2.RetrySagaRequest(saga_id="one", reason="try")
            waiting = asyncio.ensure_future(reason_for(operator.RetrySaga(retry)))
            await asyncio.wait_for(asked.wait(), WAIT_S)
            await stack.aclose()
            assert await asyncio.wait_for(waiting, WAIT_S) == "NOT_OWNED"
