"""The README is true: its example and its commands run against a real server, as they stand there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from amends import Client, SagaStatus
from amends_server.app import serving
from amends_server.config import load_settings
from participants.shop.saga import order
from participants.shop.services import serving_shop
from tests.sources import ROOT

ADDRESS = "127.0.0.1:7242"
COMMAND_S = 120
CHECKS_S_MAX = 2.0  # of the processor: a check is for every run of the tests
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path / 'amends.db'}")
    async with serving(settings) as running:
        yield running.address


async def test_the_example_runs_as_it_stands(server: str, tmp_path: Path) -> None:
    [example] = blocks("python", "Write one")
    assert example == (ROOT / "examples/trip.py").read_text(encoding="utf-8")
    program = tmp_path / "trip.py"
    program.write_text(at(server, example), encoding="utf-8")
    printed = await run(sys.executable, str(program))
    [shown] = blocks("text", "Write one")
    assert re.sub(r" +\n", "\n", printed).endswith(shown)


def test_its_tests_pass_as_they_stand_there_and_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = blocks("python", "Test it")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    module: dict[str, Any] = {"__name__": "test_trip"}
    exec(compile(source, "README.md", "exec"), module)  # noqa: S102 - it is our own page
    monkeypatch.delitem(sys.modules, "trip")
    begin = time.process_time()
    for name in ("test_who_cannot_pay_gets_no_seat", "test_nothing_is_left_half_done"):
        module[name]()
    assert time.process_time() - begin < CHECKS_S_MAX


async def test_a_generic_client_starts_and_watches_a_saga_by_reflection_alone(server: str, tmp_path: Path) -> None:
    [commands] = blocks("sh", "Any gRPC client")
    async with serving_shop(tmp_path, orchestrator=server), Client(server) as client:
        await client.register(order)
        printed = await run("bash", "-euc", at(server, commands))
        assert (await client.get("order-42")).status is SagaStatus.COMPLETED
    started, *watched = json_values(printed)
    assert started["created"] is True
    assert [each["event"]["sequence"] for each in watched] == [str(n + 1) for n in range(len(watched))]
    assert watched[-1]["status"] == "SAGA_STATUS_COMPLETED"


def test_the_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join([*blocks("sh", "Try it"), README])))
    assert {"demo", "test", "serve"} <= named <= targets


def blocks(language: str, heading: str) -> list[str]:
    """The blocks of code of a language below a heading of the README."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def at(server: str, code: str) -> str:
    """The code for a server at another address than the usual one."""
    assert ADDRESS in code
    return code.replace(ADDRESS, server)


async def run(*command: str) -> str:
    """What a command printed; it must succeed, and may use the programs of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PATH": path}
    )
    try:
        printed, complaints = await asyncio.wait_for(process.communicate(), COMMAND_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


def json_values(text: str) -> list[dict[str, dict[str, str]]]:
    """The JSON values that stand one after another in a text."""
    decoder, values, place = json.JSONDecoder(), [], 0
    while place < len(text.rstrip()):
        value, end = decoder.raw_decode(text, place)
        values.append(value)
        place = end + len(text[end:]) - len(text[end:].lstrip())
    return values
