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

UNWRITABLE = """
import os, sys
closed = open(os.devnull, "w")
reader, writer = os.pipe()
a_pipe = os.fdopen(writer, "w")
os.close(reader)
sys.stderr = STREAM
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


@pytest.mark.parametrize("stream", ["open('/dev/full', 'w')", "closed", "a_pipe"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_that_cannot_be_written_is_lost_and_harms_nobody(form: str, stream: str) -> None:
    log = BREAK.replace("FORM)", f"{form!r}); closed.close()") + "print('went on')"
    program = UNWRITABLE.replace("STREAM", stream) + log
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "went on\n", done.stderr
