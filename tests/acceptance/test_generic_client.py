"""A client that knows nothing of the project, `buf curl`, runs and watches sagas by reflection alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amends import SagaStatus
from tests.acceptance.harness import WAIT_S, Gate, World, refuse, succeed

BUF = shutil.which("buf", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")

pytestmark = pytest.mark.skipif(
    BUF is None and os.environ.get("CI") != "true",  # there a part of the proof must not go missing silently
    reason="buf is not installed: pip install buf-bin",
)

DEFINITION = {
    "name": "greeting",
    "steps": [
        {"id": "one", "participant": "worker", "action": "one", "compensation": {}},
        {
            "id": "two",
            "participant": "worker",
            "action": "two",
            "compensation": {"notNeeded": True},
            "after": ["one"],
            "inputTemplate": '{"hello":"${input.name}"}',
            "retry": {"attemptsMax": 1},
        },
    ],
    "outputTemplate": '{"said":"${steps.two.output.said}"}',
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the program said: its messages, and its complaint if it had one."""

    code: int
    messages: list[dict[str, Any]]
    error: str


class Curl:
    """`buf curl` at a server. It gets an address and names of methods, and works far from the project's files."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._folder = folder

    async def begin(self, method: str, request: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(request),
            f"http://{self._address}/{method}",
            cwd=self._folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def call(self, method: str, request: object) -> Answer:
        process = await self.begin(method, request)
        async with asyncio.timeout(WAIT_S):
            out, complaint = await process.communicate()
        return Answer(process.returncode or 0, messages(out.decode()), complaint.decode())


def messages(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand one after another in a text."""
    decoder, found, place = json.JSONDecoder(), list[dict[str, Any]](), 0
    while place < len(text.rstrip()):
        message, place = decoder.raw_decode(text, place)
        found.append(message)
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


@pytest.fixture
def curl(world: World, tmp_path: Path) -> Curl:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Curl(world.orchestrator.address, folder)


async def test_a_saga_is_started_and_watched_by_reflection_alone(world: World, curl: Curl) -> None:
    gate = Gate()
    world.worker.on("two", gate.before(succeed({"said": "hello, Ada"})))
    start = {
        "sagaId": "s",
        "inlineDefinition": DEFINITION,
        "input": {"json": '{"name":"Ada"}'},
        "labels": {"by": "buf"},
    }
    started = await curl.call("amends.v1.OrchestratorService/StartSaga", start)
    assert started.code == 0, started.error
    [message] = started.messages
    assert message["created"] is True
    assert message["saga"]["sagaId"] == "s"
    watch = await curl.begin("amends.v1.OrchestratorService/WatchSaga", {"sagaId": "s"})
    await gate.reached()
    gate.release()
    async with asyncio.timeout(WAIT_S):
        out, complaint = await watch.communicate()
    assert watch.returncode == 0, complaint
    events = messages(out.decode())
    assert [(event["status"], *sorted(set(event["event"]) - {"sequence", "time"})) for event in events] == [
        ("SAGA_STATUS_PENDING", "sagaStarted"),
        ("SAGA_STATUS_RUNNING", "stepDispatched"),
        ("SAGA_STATUS_RUNNING", "stepSucceeded"),
        ("SAGA_STATUS_RUNNING", "stepDispatched"),
        ("SAGA_STATUS_RUNNING", "stepSucceeded"),
        ("SAGA_STATUS_COMPLETED", "sagaCompleted"),
    ]
    assert world.ledger.names() == ["one", "two"]
    assert world.ledger.calls("s", "two")[0].execute_request.input.json == '{"hello":"Ada"}'
    [got] = (await curl.call("amends.v1.OrchestratorService/GetSaga", {"sagaId": "s", "wait": True})).messages
    assert got["saga"]["status"] == "SAGA_STATUS_COMPLETED"
    assert got["saga"]["output"] == {"json": '{"said":"hello, Ada"}'}


async def test_a_saga_is_cancelled_and_listed_by_reflection_alone(world: World, curl: Curl) -> None:
    gate = Gate()
    world.worker.on("two", gate.before(refuse("NO")))
    [registered] = (
        await curl.call("amends.v1.OrchestratorService/RegisterDefinition", {"definition": DEFINITION})
    ).messages
    assert registered["created"] is True
    started = await curl.call(
        "amends.v1.OrchestratorService/StartSaga",
        {"sagaId": "s", "definition": {"name": "greeting"}, "input": {"json": '{"name":"Bob"}'}},
    )
    assert started.code == 0, started.error
    await gate.reached()
    cancelled = await curl.call("amends.v1.OrchestratorService/CancelSaga", {"sagaId": "s", "reason": "enough"})
    assert cancelled.code == 0, cancelled.error
    gate.release()
    assert (await world.settled("s")).status is SagaStatus.COMPENSATED
    [listed] = (
        await curl.call(
            "amends.v1.OrchestratorService/ListSagas", {"filter": {"statuses": ["SAGA_STATUS_COMPENSATED"]}}
        )
    ).messages
    assert [saga["sagaId"] for saga in listed["sagas"]] == ["s"]
    [participants] = (await curl.call("amends.v1.OperatorService/ListParticipants", {})).messages
    assert [each["name"] for each in participants["participants"]] == ["worker"]


async def test_a_refusal_is_told_with_its_details(curl: Curl) -> None:
    refused = await curl.call("amends.v1.OrchestratorService/GetSaga", {"sagaId": "nobody"})
    assert refused.code != 0
    complaint = json.loads(refused.error)
    assert complaint["code"] == "not_found"
    assert [detail for detail in complaint["details"] if detail["type"] == "google.rpc.ErrorInfo"]


async def test_the_server_says_that_it_is_well(curl: Curl) -> None:
    [health] = (await curl.call("grpc.health.v1.Health/Check", {})).messages
    assert health == {"status": "SERVING"}
