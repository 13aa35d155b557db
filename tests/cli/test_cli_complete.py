"""amends complete: a step whose work is in progress elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cli.programs import amends

APPEARS_S = 60


def started(server: str, saga_id: str, folder: Path) -> str:
    """Start a saga that waits for somebody's word, and return the token that this takes."""
    path = folder / saga_id
    assert (
        amends("start", "dawdling", "--id", saga_id, "--input", json.dumps({"path": str(path)}), server=server).code
        == 0
    )
    end = time.monotonic() + APPEARS_S
    while not path.exists():
        assert time.monotonic() < end, "the participant was not called"
        time.sleep(0.02)
    return path.read_text(encoding="utf-8")


def test_a_step_is_done(server: str, tmp_path: Path) -> None:
    token = started(server, "slow-done", tmp_path)
    wrong = amends("complete", "slow-done", "work", "--token", "guessed", server=server)
    assert (wrong.code, wrong.out) == (1, "")
    done = amends("complete", "slow-done", "work", "--token", token, "--output", '{"n": 1}', server=server)
    assert (done.code, done.err) == (0, "")
    assert amends("watch", "slow-done", server=server).code == 0
    shown = amends("show", "slow-done", "-o", "json", server=server).json["saga"]
    assert json.loads(shown["output"]["json"]) == {"work": {"n": 1}}


def test_a_step_is_refused(server: str, tmp_path: Path) -> None:
    token = started(server, "slow-refused", tmp_path)
    refuse = ["complete", "slow-refused", "work", "--refuse", "TOO_SLOW", "--message", "gave up", "-o", "json"]
    refused = amends(*refuse, server=server, AMENDS_COMPLETION_TOKEN=token)
    assert (refused.code, refused.json["saga"]["steps"][0]["error"]["code"]) == (0, "TOO_SLOW")
    assert amends("watch", "slow-refused", server=server).code == 4
    assert "TOO_SLOW: gave up" in amends("show", "slow-refused", server=server).out


def test_a_step_that_broke_is_asked_for_again(server: str, tmp_path: Path) -> None:
    token = started(server, "slow-broken", tmp_path)
    broke = ["complete", "slow-broken", "work", "--token", token, "--break-off", "BURNT", "--message", "it burnt"]
    assert amends(*broke, server=server).code == 0
    again = amends("complete", "slow-broken", "work", "--token", token, "--output", '{"n": 2}', server=server)
    assert (again.code, again.err) == (0, "")
    assert amends("watch", "slow-broken", server=server).code == 0
    step = amends("show", "slow-broken", "-o", "json", server=server).json["saga"]["steps"][0]
    assert (step["attempts"], step["error"]["code"], step["error"]["message"]) == (2, "BURNT", "it burnt")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--token", "t", "--output", "1", "--refuse", "NO"], "has no output"),
        (["--token", "t", "--output", "1", "--break-off", "NO"], "has no output"),
        (["--token", "t", "--refuse", "NO", "--break-off", "NO"], "cannot be both"),
        (["--token", "t", "--message", "x"], "say its code with --refuse"),
        (["--token", "t", "--output", "{"], "not valid JSON"),
        ([], "--token"),
    ],
)
def test_wrong_usage_asks_nothing(arguments: list[str], sentence: str) -> None:
    ended = amends("complete", "saga", "step", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
