"""`amends demo` end to end: real processes, and numbers that are read back from the shop's own files."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import amends_server
from tests.cli.programs import AMENDS, CLEAN, READY_S, program, script

AMOUNTS = {
    "stock of mug": (50, 46),
    "stock of pot": (25, 25),
    "stock of tea": (100, 100),
    "balance of ada": (1000, 900),
    "balance of bob": (500, 500),
    "balance of cyd": (200, 200),
    "parcels sent": (0, 1),
}
"""Before and after: four mugs at 25 are sent to ada, and nothing else has happened."""


def test_demo_adds_up_under_pipes(tmp_path: Path) -> None:
    ended = script("demo", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert (ended.code, ended.err) == (0, "")
    for name, (before, after) in AMOUNTS.items():
        assert re.search(rf"^{name} +{before} +{after} +{after} +right$", ended.out, re.MULTILINE), name
    for text in ("OUT_OF_STOCK", "INSUFFICIENT_FUNDS", "ADDRESS_NOT_SERVED", "It adds up"):
        assert text in ended.out
    order = ended.out.partition("4. bob")[2]
    steps = re.findall(r" (charge|reserve) +(RUNNING|SUCCEEDED|COMPENSATING|COMPENSATED)", order)
    assert steps[-4:] == [
        ("charge", "COMPENSATING"),
        ("charge", "COMPENSATED"),
        ("reserve", "COMPENSATING"),
        ("reserve", "COMPENSATED"),
    ]
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


def test_demo_that_is_kept_says_commands_that_work(tmp_path: Path) -> None:
    with program(str(AMENDS), "demo", "--keep", cwd=tmp_path, TMPDIR=str(tmp_path)) as demo:
        demo.lines_until("In another terminal")
        commands = [demo.line().strip() for _ in range(6)]
        codes = {command: run(command, tmp_path) for command in commands}
        ended = demo.end(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")
    assert [shlex.split(command)[1] for command in commands] == [
        "list",
        "show",
        "watch",
        "start",
        "definitions",
        "participants",
    ]
    assert [code for command, code in codes.items() if " watch " not in command] == [0] * 5
    assert [code for command, code in codes.items() if " watch " in command] == [4]  # that order was compensated
    assert list(tmp_path.iterdir()) == []


def test_demo_that_is_stopped_early_does_not_pass(tmp_path: Path) -> None:
    with program(str(AMENDS), "demo", cwd=tmp_path, TMPDIR=str(tmp_path)) as demo:
        demo.lines_until("^1. ada")
        ended = demo.end(signal.SIGTERM)
    assert ended.code == 1
    assert "stopped before its end" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_demo_without_a_clone_says_so(tmp_path: Path) -> None:
    package = Path(amends_server.__file__).parent
    copy = tmp_path / "lib" / "site" / "amends_server"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "amends_server.cli", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=CLEAN | {"PYTHONPATH": str(copy.parent), "TMPDIR": str(temporary)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "The demo needs a clone of the repository" in done.stderr
    assert ("are kept in" in done.stderr, list(temporary.iterdir())) == (False, [])


def run(command: str, folder: Path) -> int:
    """Run a line as a person types it."""
    words = shlex.split(command)
    return subprocess.run(words, cwd=folder, env=CLEAN, capture_output=True, timeout=READY_S).returncode
