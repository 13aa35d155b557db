"""Hosting by several processes: who leaves hands a participant back; where nobody answers another one takes over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn, cast

import grpc

from amends._addresses import proxy_options
from amends.client.catalogue import participants_at
from amends.client.connection import Connection
from amends.errors import AmendsError, RpcError
from amends.v1 import operator_pb2, participant_pb2, participant_pb2_grpc

log = logging.getLogger("amends.participant")

LOOK_INTERVAL_S = 2.0  # how long calls may go to a process that died while another one hosts the same
ANSWER_S = 2.0  # a process that is busy for longer loses its calls to another one, which harms nobody
LEAVE_S = 3.0  # nobody should wait for long at the end of a process


@asynccontextmanager
async def shared(connection: Connection, name: str, address: str, before: str | None) -> AsyncGenerator[None, None]:
    """Look after the registration of a participant that is hosted at `address` while the block runs.

    `before` is where it was registered until then; it is handed back to there at the end.
    """
    hosted = _Hosted(connection, name, address)
    looking = asyncio.create_task(hosted.look_for_ever(), name=f"hosting {name}")
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        if before is not None and before != address:
            await hosted.hand_back(before)


async def registered_before(connection: Connection, name: str) -> str | None:
    """Return where a participant is registered before it is hosted here; None also if nobody says, for now."""
    try:
        return await registered_at(connection, name)
    except RpcError as error:
        log.warning("it is not known where participant %s was registered: %s", name, error)
        return None


async def registered_at(connection: Connection, name: str) -> str | None:
    """Return where a participant is registered.

    :raises RpcError: if the orchestrator does not say.
    """
    async with aclosing(participants_at(connection)) as found:
        async for participant in found:
            if participant.name == name:
                return participant.address
    return None


@dataclass(frozen=True, slots=True)
class _Hosted:
    """A participant that this process hosts at an address."""

    connection: Connection
    name: str
    address: str

    async def look_for_ever(self) -> NoReturn:
        """Take the participant over whenever nobody answers where it is registered."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                await self._look()
            except AmendsError as error:
                log.warning("it is not known where participant %s is registered: %s", self.name, error)

    async def _look(self) -> None:
        there = await registered_at(self.connection, self.name)
        if there == self.address or (there is not None and await self._answers(there)):
            return
        log.warning("participant %s does not answer at %s: registered at %s now", self.name, there, self.address)
        await self._register(self.address)

    async def hand_back(self, before: str) -> None:
        """Have the process be called again that was before, if it answers and no other one has come meanwhile."""
        try:
            async with asyncio.timeout(LEAVE_S):
                if await self._answers(before) and await registered_at(self.connection, self.name) == self.address:
                    await self._register(before)
        except (AmendsError, TimeoutError) as error:
            log.warning("participant %s was not handed back to %s: %r", self.name, before, error)

    async def _answers(self, address: str) -> bool:
        """Tell whether this participant is there. One that does not describe itself is for others to look after."""
        async with grpc.aio.insecure_channel(address, options=proxy_options(address)) as channel:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel)
            try:
                described = await stub.Describe(participant_pb2.DescribeRequest(), timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNIMPLEMENTED
        answer = cast("participant_pb2.DescribeResponse | None", described)
        return answer is not None and answer.participant == self.name

    async def _register(self, address: str) -> None:
        request = operator_pb2.PutParticipantRequest(
            participant=operator_pb2.Participant(name=self.name, address=address)
        )
        await self.connection.repeatable(self.connection.operator.PutParticipant, request)
