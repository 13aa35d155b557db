"""Logs as a process writes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PRIVATE = "4929-1234-5678"
BREAK = f"""
import structlog
from amends_server.logs import set_up_logs
set_up_logs("info", FORM)
def work(payload):
    raise ValueError("it broke")
try:
    work("{PRIVATE}".lower())
except ValueError:
    structlog.get_logger().exception("broke", saga_id="s-1")
"""


def run(form: str) -> str:
    program = BREAK.replace("FORM", repr(form))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_i46_a_traceback_shows_lines_and_no_local_variables(form: str) -> None:
    text = run(form)
    assert "ValueError: it broke" in text
    assert "in work" in text
    assert "payload =" not in text


def test_json_logs_are_one_document_a_line() -> None:
    (line,) = run("json").splitlines()
    entry = json.loads(line)
    assert entry["event"] == "broke"
    assert entry["saga_id"] == "s-1"
    assert entry["level"] == "error"
