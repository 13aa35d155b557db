"""Every method of the server with hostile messages: a clean status each time, and nothing stored by what was refused.

AMENDS_FUZZ=100 makes a hundred times as many. A failure names its seed and the request; `Maker` makes it again.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import grpc
import pytest

from tests.fuzz.messages import Maker
from tests.fuzz.target import CLEAN, KNOWN, MAY_WAIT, METHODS, Target, target
from tests.postgres import Database

TIMES = int(os.environ.get("AMENDS_FUZZ", "1"))
SEED = int(os.environ.get("AMENDS_FUZZ_SEED", "0"))
CASES = 60
"""Requests a method: some seconds for all."""


@pytest.mark.timeout(600 * TIMES)
async def test_a_hostile_request_is_answered_cleanly_and_leaves_nothing(tmp_path: Path) -> None:
    async with target(f"sqlite:///{tmp_path / 'amends.db'}", tmp_path) as fuzzed:
        for name in METHODS:
            await fuzz(fuzzed, name, CASES * TIMES)


@pytest.mark.timeout(600 * TIMES)
async def test_a_hostile_request_over_postgresql(tmp_path: Path, database: Database) -> None:
    async with target(database.new_url(), tmp_path) as fuzzed:
        for name in METHODS:
            await fuzz(fuzzed, name, CASES * TIMES // 4)


async def fuzz(fuzzed: Target, name: str, count: int) -> None:
    """Send so many requests to a method."""
    before = await fuzzed.stored()
    for number in range(count):
        what = f"{SEED}/{name}/{number}"
        data = Maker(Random(what), KNOWN).bytes_of(METHODS[name].input_type)
        code, reason = await fuzzed.ask(METHODS[name], data)
        waits = code is grpc.StatusCode.DEADLINE_EXCEEDED and name in MAY_WAIT
        told = f"{what} was answered {code.name} {reason}: {data[:2_000]!r}"
        assert code in CLEAN or waits, f"{told}\n{fuzzed.mistakes.taken()}"
        assert reason or code in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED) or waits, told
        mistakes = fuzzed.mistakes.taken()
        assert mistakes == [], f"{told}\n{mistakes}"
        if waits:
            await fuzzed.rest()
        after = await fuzzed.stored()
        assert after == before or code is grpc.StatusCode.OK or waits, f"{told} and left {after ^ before}"
        before = after
