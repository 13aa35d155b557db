"""A participant over a real socket that answers by script and writes down what it was asked and what it did."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

import grpc

from amends.v1 import participant_pb2
from tests.acceptance.harness_answers import Answer, Fault, refuse, succeed
from tests.acceptance.harness_ledger import Ledger, Record, now_s
from tests.acceptance.harness_session import ScriptedSession

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name


class ScriptedParticipant:
    """Answers each call by what `on` said of it, and with success where nothing was said.

    It takes and gives bytes, so that replies may be unreadable. Work goes on when the caller has given up, as that of
    plain handlers does. Effects happen once a key; a key that was compensated before it was executed is refused.
    With `actions` it describes itself; without, it answers Describe with UNIMPLEMENTED. With `sessions` it takes its
    calls over a stream, and without only by themselves.
    """

    def __init__(
        self, name: str, ledger: Ledger, actions: tuple[str, ...] | None = None, *, sessions: bool = False
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.address = ""
        self._actions = actions
        self.calls_in_sessions = 0
        self._sessions = sessions
        self._scripts: dict[tuple[str, str], tuple[Answer, ...]] = {}
        self._server: grpc.aio.Server | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._done: set[str] = set()
        self._undone: set[str] = set()
        self._deaths: deque[asyncio.Task[None]] = deque()

    def on(self, name: str, *answers: Answer, saga: str = "") -> None:
        """Answer attempts 1, 2, … of a call so; the last answer goes for all further ones.

        `name` is a step's id, or `undo` and a step's id. With a `saga`, only its calls; they go before the others.
        """
        assert answers, "say at least one answer"
        self._scripts[saga, name] = answers

    async def start(self) -> None:
        """Listen; after `stop`, on the same port."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        self._server.add_generic_rpc_handlers((self._handlers(),))
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Break down: connections are cut and work is lost."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)

    async def close(self) -> None:
        """Stop, and wait for breakdowns that are under way."""
        await self.stop()
        if self._deaths:
            await asyncio.gather(*self._deaths)

    def _handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Execute": grpc.unary_unary_rpc_method_handler(self._execute),
            "Compensate": grpc.unary_unary_rpc_method_handler(self._compensate),
            "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
        }
        if self._sessions:
            methods["Session"] = grpc.stream_stream_rpc_method_handler(self._session)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _execute(self, body: bytes, context: Context) -> bytes:
        return await self._reply(_execution(participant_pb2.ExecuteRequest.FromString(body), body), context)

    async def _compensate(self, body: bytes, context: Context) -> bytes:
        return await self._reply(_compensation(participant_pb2.CompensateRequest.FromString(body), body), context)

    async def _session(self, _: object, context: Context) -> None:
        await ScriptedSession(context, self._answer_in_session).run()

    async def _answer_in_session(self, call: participant_pb2.SessionCall) -> Answer:
        self.calls_in_sessions += 1
        if call.HasField("compensate"):
            return await self._begin(_compensation(call.compensate, call.compensate.SerializeToString()))
        return await self._begin(_execution(call.execute, call.execute.SerializeToString()))

    async def _describe(self, _: bytes, context: Context) -> bytes:
        if self._actions is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this participant does not describe itself")
        described = participant_pb2.DescribeResponse(participant=self.name)
        for action in self._actions or ():
            described.actions.add(name=action, has_compensation=True)
        return described.SerializeToString()

    async def _begin(self, call: Record) -> Answer:
        self._note("start", call)
        task = asyncio.create_task(self._answer(call))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def _reply(self, call: Record, context: Context) -> bytes:
        answer = await self._begin(call)
        if answer.code is not None:
            await context.abort(answer.code, answer.details)
        if answer.body is not None:
            return answer.body
        kind = participant_pb2.CompensateResponse if call.compensating else participant_pb2.ExecuteResponse
        return kind(reply=answer.reply).SerializeToString()

    async def _answer(self, call: Record) -> Answer:
        answer = self._script(call)
        if answer.before is not None:
            await answer.before.hold()
        if not call.compensating and call.execute_key in self._undone:
            answer = refuse("UNDONE", "this call was undone; it has no effect any more", stored=True)
        if answer.effect:
            self._have(call)
        if answer.after is not None:
            await answer.after.hold()
        self._note("end", call, answer.outcome)
        if answer.fault is Fault.DIE:
            self._deaths.append(asyncio.create_task(self.stop()))
        if answer.fault is not None:
            await asyncio.Event().wait()
        return answer

    def _script(self, call: Record) -> Answer:
        answers = self._scripts.get((call.saga, call.name)) or self._scripts.get(("", call.name))
        return answers[min(call.attempt, len(answers)) - 1] if answers else succeed()

    def _have(self, call: Record) -> None:
        if not call.compensating and call.key not in self._done:
            self._done.add(call.key)
            self._note("effect", call)
        elif call.compensating and call.execute_key not in self._undone:
            self._undone.add(call.execute_key)
            if call.execute_key in self._done:
                self._note("undone", call)

    def _note(self, kind: str, call: Record, outcome: str = "") -> None:
        self.ledger.add(replace(call, kind=kind, time_s=now_s(), outcome=outcome))


def _execution(request: participant_pb2.ExecuteRequest, body: bytes) -> Record:
    return _call(request.call, request.action, request.call.key, body, False)


def _compensation(request: participant_pb2.CompensateRequest, body: bytes) -> Record:
    return _call(request.call, request.action, request.execute_key, body, True)


def _call(call: participant_pb2.Call, action: str, execute_key: str, body: bytes, compensating: bool) -> Record:
    return Record(
        kind="start",
        time_s=now_s(),
        saga=call.saga_id,
        step=call.step,
        action=action,
        compensating=compensating,
        key=call.key,
        execute_key=execute_key,
        attempt=call.attempt,
        epoch=call.epoch,
        request=body,
    )
