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
    try:
        raise KeyError(payload)
    except KeyError as error:
        raise ExceptionGroup("of " + payload, [ValueError(payload)]) from error
try:
    work("{PRIVATE}".lower())
except ExceptionGroup:
    structlog.get_logger().exception("broke", saga_id="s-1")
"""


def run(form: str) -> str:
    program = BREAK.replace("FORM", repr(form))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_i46_a_traceback_shows_types_and_lines_and_neither_texts_nor_local_variables(form: str) -> None:
    text = run(form)
    assert "ExceptionGroup" in text
    assert "holds ValueError" in text
    assert "after KeyError" in text
    assert "in work" in text
    assert PRIVATE not in text


def test_json_logs_are_one_document_a_line() -> None:
    (line,) = run("json").splitlines()
    entry = json.loads(line)
    assert entry["event"] == "broke"
    assert entry["saga_id"] == "s-1"
    assert entry["level"] == "error"
