"""Programs are started beside busy calls: those of a database server, which root has to start as another user."""

from __future__ import annotations

import asyncio
import subprocess

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.postgres import server_user

PROGRAMS, CALLERS = 50, 8


async def test_programs_begin_while_calls_are_under_way() -> None:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def call() -> None:
            while True:
                await stub.Check(health_pb2.HealthCheckRequest())

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        try:
            for _ in range(PROGRAMS):
                await asyncio.to_thread(subprocess.run, ["true"], check=True, cwd="/", **server_user())
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
    await server.stop(None)
