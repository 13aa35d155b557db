"""retry, resolve, fail, pause and resume, participants and health through the real console script."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.programs import amends, in_process, orchestrator


def start_jammed(server: str, saga_id: str, gate: Path) -> None:
    """Start a saga that is STUCK until the gate is open."""
    given = ["--id", saga_id, "--input", json.dumps({"path": str(gate)})]
    started = amends("start", "jammed", *given, "--wait", server=server)
    assert started.code == 4
    assert f"amends retry {saga_id} --reason TEXT" in started.out
    assert f"{saga_id} is STUCK and not COMPLETED: see `amends show {saga_id}`" in started.err


def status(server: str, saga_id: str) -> str:
    shown = amends("cancel", saga_id, "--wait", "-o", "json", server=server)
    return str(shown.json["saga"]["status"]).removeprefix("SAGA_STATUS_")


def test_retry_lets_a_stuck_saga_go_on(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_jammed(server, "retried", gate)
    assert [row["sagaId"] for row in stuck(server) if row["sagaId"] == "retried"] == ["retried"]
    gate.touch()
    assert amends("retry", "retried", "--reason", "unjammed", server=server).code == 0
    assert status(server, "retried") == "COMPENSATED"


def test_resolve_settles_a_step(server: str, tmp_path: Path) -> None:
    start_jammed(server, "resolved", tmp_path / "gate")
    resolve = ["resolve", "resolved", "hold", "--as", "compensated"]
    assert amends(*resolve, server=server).code == 2
    output = amends(*resolve, "--output", "{}", "--reason", "let go by hand", server=server)
    assert (output.code, "Only a step that SUCCEEDED has an output" in output.err) == (1, True)
    done = amends(*resolve, "--reason", "let go by hand", "-o", "json", server=server)
    assert done.json["saga"]["steps"][0]["resolution"]["reason"] == "let go by hand"
    assert status(server, "resolved") == "COMPENSATED"


def test_fail_gives_up(server: str, tmp_path: Path) -> None:
    start_jammed(server, "failed", tmp_path / "gate")
    failed = amends("fail", "failed", "--reason", "scrapped", "-o", "json", server=server)
    assert (failed.code, failed.json["saga"]["status"]) == (0, "SAGA_STATUS_FAILED")
    again = amends("fail", "failed", "--reason", "scrapped", server=server)
    assert (again.code, again.out) == (1, "")


def test_pause_and_resume(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    given = ["--id", "paused", "--input", json.dumps({"path": str(gate)})]
    assert amends("start", "hanging", *given, server=server).code == 0
    paused = amends("pause", "paused", "--reason", "audit", server=server)
    assert (paused.code, "(paused)" in paused.out) == (0, True)
    resumed = amends("resume", "paused", "--reason", "audited", "-o", "json", server=server)
    assert (resumed.code, resumed.json["saga"]["paused"]) == (0, False)
    gate.touch()
    assert amends("watch", "paused", server=server).code == 0


def test_a_reason_is_asked_for() -> None:
    for command in (["retry", "x"], ["fail", "x"], ["pause", "x"], ["resume", "x"]):
        ended = in_process(*command)
        assert (ended.code, "Say why with --reason TEXT" in ended.err) == (2, True)


def test_participants_are_added_and_removed(server: str) -> None:
    added = amends("participants", "add", "spare", "localhost:1", "--concurrency-max", "3", server=server)
    assert (added.code, "it does not answer now" in added.out) == (0, True)
    listed = amends("participants", "list", "-o", "json", server=server).json["participants"]
    assert {each["name"]: each["concurrencyMax"] for each in listed}["spare"] == 3
    assert "payment" in amends("participants", "list", server=server).out
    assert amends("participants", "remove", "spare", server=server).out == "spare removed\n"
    assert amends("participants", "remove", "spare", server=server).code == 1
    refused = amends("participants", "add", "far", "192.0.2.1:80", server=server)
    assert (refused.code, "participant_allow" in refused.err) == (1, True)
    assert amends("participants", "add", "odd", "here", server=server).code == 2


def test_health_is_for_probes(server: str, tmp_path: Path) -> None:
    serving = amends("health", server=server)
    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert amends("health", "-o", "json", server=server).json == {"status": "SERVING"}
    with orchestrator(f"sqlite:///{tmp_path}/a.db") as (process, address):
        assert amends("health", server=address).code == 0
        process.kill()
        assert amends("health", server=address).code == 3


def stuck(server: str) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = amends("list", "--status", "stuck", "-o", "json", server=server).json["sagas"]
    return listed
