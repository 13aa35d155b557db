"""Help: quick, complete, and with exit codes and environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from amends_server.config import Settings
from tests.cli.programs import CLEAN, amends, script

CLIENTS = (
    *(["start"], ["show"], ["list"], ["watch"], ["cancel"], ["retry"], ["resolve"], ["fail"], ["pause"], ["resume"]),
    *(["definitions", each] for each in ("check", "register", "list", "show", "diff", "graph", "remove")),
    *(["participants", each] for each in ("list", "add", "remove")),
    *(["health"], ["stuck"], ["complete"]),
)


@pytest.mark.parametrize("command", CLIENTS, ids=" ".join)
def test_help_names_exit_codes_and_environment(command: list[str]) -> None:
    ended = amends(*command, "--help")
    assert ended.code == 0
    for text in ("Exit codes:", "AMENDS_SERVER", "--format", "-o", "127.0.0.1:7242"):
        assert text in ended.out


def test_help_of_serve_names_every_setting() -> None:
    text = amends("serve", "--help").out
    assert [name for name in Settings.model_fields if name not in text] == []
    assert "Exit codes:" in text
    assert "AMENDS_CONFIG" in text


def test_help_of_all_names_the_commands() -> None:
    ended = script("--help")
    assert [each[0] for each in (*CLIENTS, ["serve"], ["demo"], ["bench"]) if f" {each[0]} " not in ended.out] == []
    assert "Exit codes:" in ended.out
    assert "Exit codes:" in amends("demo", "--help").out


def test_version() -> None:
    assert script("--version").out.startswith("amends 0.")


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; import amends_server.cli.commands; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=CLEAN)
    heavy = {"grpc", "google.protobuf", "pydantic", "structlog", "amends", "aiosqlite", "yaml"}
    assert heavy.intersection(loaded.stdout.split()) == set()


def test_wrong_commands_exit_with_2() -> None:
    for arguments in (["frobnicate"], ["show"], ["resolve", "x", "y", "--as", "z"], ["list", "--limit", "0"]):
        ended = amends(*arguments)
        assert (ended.code, ended.out) == (2, "")
