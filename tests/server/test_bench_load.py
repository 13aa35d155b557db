"""How a load is measured: nothing of the warming up, and slow sagas for as long as it takes."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from amends_server.bench import load


async def test_slow_sagas_are_measured_until_each_place_had_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_UP_S", 0.0)
    measured = await load.drive(lambda: asyncio.sleep(0.05), 8, seconds=0.001)
    assert 8 <= measured["sagas"] <= 15
    assert 0 < measured["sagas_per_s"] < 8 / 0.05
    assert 50 <= measured["p50_ms"] <= measured["p99_ms"]


async def test_what_ends_while_it_warms_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WARM_UP_S", 0.1)
    measured = await load.drive(lambda: asyncio.sleep(0.02), 1, seconds=0.1)
    assert measured["sagas"] > measured["sagas_per_s"] * 0.1


async def test_a_call_that_grpc_cancels_is_made_anew_and_other_errors_are_told() -> None:
    codes = [grpc.StatusCode.CANCELLED, grpc.StatusCode.CANCELLED, grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE]

    async def call(request: str) -> str:
        code = codes.pop(0)
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
        return request

    assert await load.answered(call, "request") == "request"
    with pytest.raises(grpc.aio.AioRpcError):
        await load.answered(call, "request")
    assert codes == []
